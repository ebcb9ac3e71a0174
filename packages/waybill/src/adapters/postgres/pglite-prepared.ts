import { WaybillError } from '../../core/errors.ts'
import type { PGliteLike } from './pglite.ts'
import { sqlStateOf } from './statements.ts'

/** The part of an opened PGlite, and of the protocol package that it exports, that this file calls. */
export interface RawPglite {
  execProtocolRaw(message: Uint8Array, options: { syncToFs?: boolean }): Promise<Uint8Array>
  readonly serializers: Readonly<Record<number | string, ((value: unknown) => string) | undefined>>
  readonly parsers: Readonly<Record<number | string, ((text: string, oid?: number) => unknown) | undefined>>
  close(): Promise<void>
}
export interface WireProtocol {
  readonly Parser: new () => { parse(bytes: Uint8Array, onMessage: (message: unknown) => void): void }
  readonly serialize: {
    parse(query: { name: string; text: string }): Uint8Array
    bind(portal: { statement: string; values: (string | null)[] }): Uint8Array
    execute(portal: { portal: string; rows: number }): Uint8Array
    describe(what: { type: 'S'; name: string }): Uint8Array
    close(what: { type: 'S'; name: string }): Uint8Array
    sync(): Uint8Array
  }
}

interface Column {
  readonly name: string
  readonly dataTypeID: number
}
interface Prepared {
  readonly name: string
  readonly paramTypes: readonly number[]
  readonly columns: readonly Column[]
  uses: number
}
interface Answer {
  readonly rows: unknown[]
  readonly command: string
}

/** Most statements kept prepared. */
const PREPARED_MAX = 200
// A plan is made for the sizes that tables have at the time. Making it anew once in a while keeps it from outliving them.
const USES_MAX = 2_000
const CACHED_PLAN_CHANGED = '0A000'
// What may change the meaning of statements that are prepared already.
const CHANGES_SCHEMA = /\b(?:create|alter|drop|truncate|discard|deallocate|search_path|reindex|analyze|vacuum)\b/i

/**
 * A PGlite that keeps its statements prepared. PGlite's own `query` plans every statement anew, in five round trips through WebAssembly; most of what a
 * statement costs is that. Here the second run of a text is one round trip and no planning: a third of the time. Only for an instance that nobody
 * else uses, since its transactions are kept apart by a queue of this wrapper's own.
 */
export function preparedPglite(raw: RawPglite, protocol: WireProtocol): PGliteLike {
  const { serialize } = protocol
  const statements = new Map<string, Prepared>()
  let toClose: Uint8Array[] = []
  let counter = 0
  let last: Promise<unknown> = Promise.resolve()

  /** Runs `fn` when everything that came before it has ended: there is one session. */
  function exclusively<T>(fn: () => Promise<T>): Promise<T> {
    const run = last.then(fn)
    last = run.catch(() => undefined)
    return run
  }

  async function exchange(parts: readonly Uint8Array[]): Promise<readonly WireMessage[]> {
    const bytes = await raw.execProtocolRaw(Buffer.concat(parts), { syncToFs: false })
    const messages: WireMessage[] = []
    let failure: Error | undefined
    new protocol.Parser().parse(bytes, (message) => {
      if (message instanceof Error) failure ??= message
      else messages.push(message as WireMessage)
    })
    if (failure !== undefined) throw failure
    return messages
  }

  function forget(text: string): void {
    const known = statements.get(text)
    if (known === undefined) return
    statements.delete(text)
    toClose.push(serialize.close({ type: 'S', name: known.name }))
  }

  async function prepare(text: string): Promise<Prepared> {
    const [oldest] = statements.keys()
    if (statements.size >= PREPARED_MAX && oldest !== undefined) forget(oldest)
    const name = `w${++counter}`
    const closing = toClose
    toClose = []
    const messages = await exchange([
      ...closing,
      serialize.parse({ name, text }),
      serialize.describe({ type: 'S', name }),
      serialize.sync(),
    ])
    const prepared: Prepared = {
      name,
      paramTypes: messages.find((message) => message.name === 'parameterDescription')?.dataTypeIDs ?? [],
      columns: (messages.find((message) => message.name === 'rowDescription')?.fields as readonly Column[] | undefined) ?? [],
      uses: 0,
    }
    statements.set(text, prepared)
    return prepared
  }

  async function run(text: string, params: readonly unknown[]): Promise<Answer> {
    const changesSchema = CHANGES_SCHEMA.test(text)
    if (changesSchema) for (const known of statements.keys()) forget(known)
    const known = statements.get(text)
    if (known !== undefined && ++known.uses > USES_MAX) forget(text)
    const prepared = statements.get(text) ?? (await prepare(text))
    if (params.length !== prepared.paramTypes.length) {
      throw new WaybillError('INVALID_OPTION', 'a statement was given the wrong number of parameters', {
        got: params.length,
        allowed: String(prepared.paramTypes.length),
        where: 'sql.query',
      })
    }
    const values = params.map((param, index) => serialized(param, raw.serializers[prepared.paramTypes[index]!]))
    try {
      const bound = serialize.bind({ statement: prepared.name, values })
      return answerOf(await exchange([bound, serialize.execute({ portal: '', rows: 0 }), serialize.sync()]), prepared.columns, raw.parsers)
    } catch (error) {
      // Whatever made it fail, a changed table included, must not fail it again.
      forget(text)
      throw error
    } finally {
      if (changesSchema) forget(text)
    }
  }

  const query = async (text: string, params: readonly unknown[] = []): Promise<Answer> => {
    try {
      return await run(text, params)
    } catch (error) {
      throw withStatement(error, text)
    }
  }

  /** Outside a transaction, a plan that a change of tables has made useless is made anew; inside one the failure has ended the transaction. */
  const standalone = async (text: string, params?: readonly unknown[]): Promise<Answer> => {
    try {
      return await query(text, params)
    } catch (error) {
      if (sqlStateOf(error) !== CACHED_PLAN_CHANGED) throw error
      return query(text, params)
    }
  }

  async function commit(failed: Error | undefined): Promise<void> {
    const { command } = await query('commit')
    // A transaction in which a statement failed is ended by COMMIT as if nothing were wrong, and rolled back.
    if (command === 'ROLLBACK') throw failed ?? new WaybillError('UNIT_CLOSED', 'the transaction was rolled back by a statement of its own')
  }

  return {
    query: (text, params) => exclusively(() => standalone(text, params)),
    transaction: (fn) =>
      exclusively(async () => {
        let failed: Error | undefined
        await query('begin')
        try {
          const result = await fn({
            query: async (text, params) => {
              try {
                return await query(text, params)
              } catch (error) {
                if (error instanceof Error) failed ??= error
                throw error
              }
            },
          })
          await commit(failed)
          return result
        } catch (error) {
          // After a COMMIT that rolled back there is nothing to undo, and saying so again is only a warning.
          await query('rollback')
          throw error
        }
      }),
    close: () => exclusively(() => raw.close()),
  }
}

interface WireMessage {
  readonly name: string
  readonly dataTypeIDs?: readonly number[]
  /** Of a row description: columns. Of a row: texts. */
  readonly fields?: readonly unknown[]
  readonly text?: string
}

function serialized(param: unknown, serializer: ((value: unknown) => string) | undefined): string | null {
  if (param === null || param === undefined) return null
  return serializer === undefined ? String(param) : serializer(param)
}

function answerOf(messages: readonly WireMessage[], columns: readonly Column[], parsers: RawPglite['parsers']): Answer {
  const rows: unknown[] = []
  let command = ''
  for (const message of messages) {
    if (message.name === 'dataRow') rows.push(rowOf(message.fields as readonly (string | null)[], columns, parsers))
    else if (message.name === 'commandComplete') command = message.text ?? ''
  }
  return { rows, command }
}

function rowOf(texts: readonly (string | null)[], columns: readonly Column[], parsers: RawPglite['parsers']): Record<string, unknown> {
  const row: Record<string, unknown> = {}
  for (const [index, text] of texts.entries()) {
    const { name, dataTypeID } = columns[index]!
    const parser = text === null ? undefined : parsers[dataTypeID]
    row[name] = parser === undefined ? text : parser(text!, dataTypeID)
  }
  return row
}

/** An error of the database says which statement it was: its message alone rarely tells. */
function withStatement(error: unknown, text: string): unknown {
  return error instanceof Error && sqlStateOf(error) !== undefined
    ? Object.assign(error, { statement: text.replaceAll(/\s+/g, ' ').trim().slice(0, 200) })
    : error
}
