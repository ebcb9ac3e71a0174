import { resolve } from 'node:path'
import { existsSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { type OutboxFilter, type Storage, type Waybill, WaybillError } from 'waybill'
import type { Flags } from './cli/arguments.ts'
import type { Command, CommandInput, ExitCode } from './cli/command.ts'
import { table } from './cli/output.ts'
import { checkBusType, databaseSetting, openStorage } from './cli/settings.ts'

const STATUSES = ['pending', 'published', 'parked'] as const
const ID_MAX = /^\d{1,19}$/

const FILTER_FLAGS = {
  database: { value: 'URL', help: 'the database; overrides DATABASE_URL' },
  type: { value: 'NAME', help: 'rows of this event type only' },
  key: { value: 'KEY', help: 'rows of this key only' },
  id: { value: 'ROW', help: 'this row; may be repeated', multiple: true },
  limit: { value: 'N', help: 'at most this many rows, 1 to 10000 (default 100)' },
} as const

/** `waybill outbox ls`: what is on its way, and what is stuck. */
export const outboxLsCommand: Command = {
  name: 'outbox ls',
  summary: 'list rows of the outbox, oldest first',
  description: ['Lists rows of the outbox with their status, attempts and last error.'],
  flags: { ...FILTER_FLAGS, status: { value: 'STATUS', help: 'pending, published or parked (default: all)' } },
  run: (input) =>
    withStorage(input, async (storage) => {
      const { flags, output } = input
      const status = flags.oneOf('status', STATUSES)
      const rows = await storage.outbox.list({ ...filterOf(flags), ...(status === undefined ? {} : { status }) })
      if (flags.on('json')) {
        output.json(rows)
        return 0
      }
      const { pending, parked, oldestPendingMs } = await storage.outbox.stats()
      if (rows.length > 0) {
        const cells = rows.map((row) => [
          row.rowId,
          row.status,
          row.eventType,
          printable(row.key),
          String(row.attempts),
          row.createdAt.toISOString(),
          row.dueAt?.toISOString() ?? '',
          printable(row.lastError ?? ''),
        ])
        const [head = '', ...lines] = table(['row', 'status', 'event type', 'key', 'attempts', 'created', 'due', 'last error'], cells)
        output.print(output.paint('bold', head))
        for (const line of lines) output.print(line)
      }
      const age = pending === 0 ? '' : `, the oldest for ${(oldestPendingMs / 1000).toFixed(1)} s`
      output.note(`${rows.length} shown; in all ${pending} pending${age}, ${parked} parked`)
      return 0
    }),
}

/** `waybill outbox retry`: what was parked or held becomes due. */
export const outboxRetryCommand: Command = {
  name: 'outbox retry',
  summary: 'make parked and held rows due again',
  description: [
    'Makes parked and held rows that match due again, with their attempts forgotten. The relay of the service',
    'that owns them takes them from there. Without a filter: all of them, up to the limit.',
  ],
  flags: { ...FILTER_FLAGS, status: { value: 'STATUS', help: 'pending (held) or parked (default: both)' } },
  run: (input) =>
    withStorage(input, async (storage) => {
      const status = input.flags.oneOf('status', ['pending', 'parked'])
      const retried = await storage.outbox.retry({ ...filterOf(input.flags), ...(status === undefined ? {} : { status }) })
      if (input.flags.on('json')) input.output.json({ retried })
      else input.output.print(`${retried} ${retried === 1 ? 'row is' : 'rows are'} due again`)
      return 0
    }),
}

/** `waybill outbox publish`: publishes what is due, once, with the transport and the handlers of an application. */
export const outboxPublishCommand: Command = {
  name: 'outbox publish',
  summary: 'publish everything that is due, once',
  description: [
    'Starts the application that --app names, publishes everything that is due, stops it, and says how many',
    'rows left the outbox. With the in-process bus the handlers live in the application, so this command needs',
    'it: a row may leave the outbox only when every handler has settled it. FILE is a module that exports',
    '  createApp(): Waybill | Promise<Waybill>    not started yet, as createWaybill() gives it back',
  ],
  flags: { app: { value: 'FILE', help: 'module that exports createApp(), .js, .mjs or .ts' } },
  stoppable: true,
  async run({ flags, output, env, signal }) {
    checkBusType(env)
    const file = flags.text('app')
    if (file === undefined) {
      throw new WaybillError(
        'INVALID_SETTING',
        'no broker is configured, and handlers in process need the application that owns them: --app is missing; nothing was published',
        { allowed: '--app FILE, a module that exports createApp()' },
      )
    }
    const app = await loadApp(file)
    try {
      await app.start()
      const published = await publishUntilStopped(app, signal)
      const { pending, parked } = await app.database.outbox.stats()
      if (flags.on('json')) output.json({ published, pending, parked })
      else output.print(`${published} published, ${pending} pending, ${parked} parked`)
      return 0
    } finally {
      await app.stop()
    }
  },
}

async function publishUntilStopped(app: Waybill, signal: AbortSignal): Promise<number> {
  const { promise: stopped, reject } = Promise.withResolvers<never>()
  const stop = (): void => reject(new WaybillError('CLOSED', 'stopped before everything was published; what is left stays in the outbox'))
  signal.addEventListener('abort', stop, { once: true })
  try {
    return await Promise.race([app.publishAllPending(), stopped])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

async function loadApp(file: string): Promise<Waybill> {
  const path = resolve(file)
  const wrong = (message: string, cause?: unknown): WaybillError =>
    new WaybillError('INVALID_FILE', message, {
      got: file,
      allowed: 'a module that exports createApp(): Waybill',
      where: '--app',
      ...(cause === undefined ? {} : { cause }),
    })
  if (!existsSync(path)) throw wrong('there is no such file')
  let module: { readonly createApp?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as typeof module
  } catch (cause) {
    throw wrong(`the application could not be loaded: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
  if (typeof module.createApp !== 'function') throw wrong('the module exports no createApp()')
  const app = (await (module.createApp as () => unknown)()) as Waybill | undefined
  if (typeof app?.publishAllPending !== 'function') throw wrong('createApp() gave back no Waybill')
  return app
}

async function withStorage(input: CommandInput, run: (storage: Storage) => Promise<ExitCode>): Promise<ExitCode> {
  const storage = await openStorage(databaseSetting(input.env, input.flags.text('database')), { create: false })
  try {
    await storage.check()
    return await run(storage)
  } finally {
    await storage.close()
  }
}

function filterOf(flags: Flags): OutboxFilter {
  const [eventType, key, rowIds, limit] = [flags.text('type'), flags.text('key'), flags.texts('id'), flags.integer('limit', 1, 10_000)]
  for (const id of rowIds) {
    if (!ID_MAX.test(id))
      throw new WaybillError('INVALID_SETTING', '--id is not a row number', {
        got: id,
        allowed: 'a number of the column "row" of "waybill outbox ls"',
      })
  }
  return {
    ...(eventType === undefined ? {} : { eventType }),
    ...(key === undefined ? {} : { key }),
    ...(rowIds.length === 0 ? {} : { rowIds }),
    ...(limit === undefined ? {} : { limit }),
  }
}

// Keys and errors come from elsewhere: what is not printable must not move the cursor of who reads them.
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`)
}
