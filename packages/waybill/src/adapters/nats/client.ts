/** Headers as this adapter hands them to a client: it asks for nothing but the bytes. */
export interface NatsHeaders {
  encode(): Uint8Array
}

/** Headers as a client hands them to us. */
export interface NatsReceivedHeaders extends Iterable<readonly [name: string, values: readonly string[]]> {
  /** The status of a message of the server itself, 0 where there is none. */
  readonly code: number
  readonly description: string
  get(name: string): string
}

/** A message as the client gives it. */
export interface NatsMessage {
  readonly subject: string
  /** Where an answer goes; empty or undefined where none is wanted. */
  readonly reply?: string
  readonly data: Uint8Array
  readonly headers?: NatsReceivedHeaders
}

/** The part of a server's greeting that is used. */
export interface NatsServerInfo {
  readonly version: string
  readonly max_payload: number
  readonly jetstream?: boolean
  readonly server_name?: string
  readonly tls_required?: boolean
}

/** The part of a connection of `@nats-io/transport-node` that is called. */
export interface NatsLike {
  readonly info?: NatsServerInfo
  publish(subject: string, payload: Uint8Array | string, options?: { readonly reply?: string; readonly headers?: NatsHeaders }): void
  subscribe(subject: string, options: { readonly callback: (error: Error | null, message: NatsMessage) => void }): { unsubscribe(): void }
  flush(): Promise<void>
  status(): AsyncIterable<{ readonly type: string; readonly error?: unknown }>
  closed(): Promise<unknown>
  close(): Promise<void>
}

/** What `@nats-io/transport-node` exports and this adapter calls. */
export interface NatsLibrary {
  connect(options: Readonly<Record<string, unknown>>): Promise<NatsLike>
  /** A signer of a server's challenge. */
  nkeyAuthenticator(seed: Uint8Array): (nonce?: string) => unknown
  credsAuthenticator(creds: Uint8Array): (nonce?: string) => unknown
}
