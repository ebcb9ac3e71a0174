/** An argument of a command. */
export type RedisArgument = string | Buffer

/** The part of a client of the `redis` package that the adapters call. */
export interface RedisLike {
  connect(): Promise<unknown>
  sendCommand(args: readonly RedisArgument[], options?: { readonly typeMapping: Readonly<Record<number, unknown>> }): Promise<unknown>
  on(event: 'error', listener: (error: Error) => void): unknown
  subscribe(channel: string, listener: (message: Buffer, channel: Buffer) => unknown, bufferMode: true): Promise<void>
  unsubscribe(channel: string): Promise<void>
  destroy(): void
}

/** What a client is made with: a part of what the `redis` package takes. */
export interface RedisClientSettings {
  readonly socket: {
    readonly host: string
    readonly port: number
    readonly connectTimeout: number
    readonly reconnectStrategy: false
    readonly tls?: true
    readonly ca?: string
    readonly cert?: string
    readonly key?: string
    readonly servername?: string
    readonly rejectUnauthorized?: boolean
  }
  readonly username?: string
  readonly password?: string
  readonly database?: number
  readonly RESP: 2
  readonly disableOfflineQueue: true
  readonly commandOptions: { readonly timeout: 0 }
}

/** The `redis` package, or a look-alike. */
export interface RedisLibrary {
  createClient(settings: RedisClientSettings): RedisLike
}
