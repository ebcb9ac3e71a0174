import type { ServiceName } from './names.ts'

/** How a server is stopped: `graceful` lets it write down what it has; `kill` is SIGKILL, from which the next start recovers. */
export type StopMode = 'graceful' | 'kill'

/** What a test may ask of its own server. */
export interface ServerOptions {
  /** Users with passwords; what a client needs is in `extra`. `'token'`: NATS with a token instead of users. */
  readonly auth?: true | 'token'
  /** A port with TLS; what a client needs is in `extra`. The certificate is for 127.0.0.1 and localhost. */
  readonly tls?: true
  /** Lines of the server's own configuration; they overrule ours. */
  readonly settings?: Readonly<Record<string, string>>
}

/** Where a server is and what a client needs to know. */
export interface ServerAddress {
  readonly name: ServiceName
  /** For Kafka `host:port`, the first bootstrap server. */
  readonly url: string
  readonly host: string
  readonly port: number
  /** `unknown` where the server doesn't tell. */
  readonly version: string
  /** Other addresses, user, password, token, files of certificates: see README.md. */
  readonly extra: Readonly<Record<string, string>>
}

/** A server that a test has for itself and may hurt. */
export interface OwnServer extends ServerAddress {
  /** Of the server process, while it runs. */
  readonly pid: number | undefined
  /** Its data stays. Nothing where it is stopped already. @default 'graceful' */
  stop(mode?: StopMode): Promise<void>
  /** Starts it again on the same port with its data, and resolves when it answers. Nothing where it runs. */
  start(): Promise<void>
  /** Stops it and removes its data. Idempotent. */
  close(): Promise<void>
}

/** A server that is ready to be started: what a file per server gives to `runServer`. */
export interface PreparedServer extends ServerAddress {
  readonly program: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Whether it answers now. */
  isReady(): Promise<boolean>
  /** How long a start may take, recovery included. */
  readonly startLimitMs: number
}

/** Writes a server's configuration into `folder`. Installs the server where it isn't there yet. */
export type Prepare = (folder: string, options: ServerOptions) => Promise<PreparedServer>
