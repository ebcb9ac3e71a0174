import type { Storage } from 'waybill'
import type { Flags } from './arguments.ts'
import type { CommandInput, ExitCode } from './command.ts'
import { type OpenOptions, databaseSetting, openStorage } from './settings.ts'

/** Options of every command that opens the database. */
export const DATABASE_FLAGS = {
  database: { value: 'URL', help: 'the database; overrides DATABASE_URL' },
  schema: { value: 'NAME', help: "the schema of Waybill's tables (default public)" },
  prefix: { value: 'NAME', help: "what the names of Waybill's tables begin with (default waybill_)" },
} as const

/** Where the tables are, as far as it was said. */
export function tablesOf(flags: Flags): { readonly schema?: string; readonly prefix?: string } {
  const [schema, prefix] = [flags.text('schema'), flags.text('prefix')]
  return { ...(schema === undefined ? {} : { schema }), ...(prefix === undefined ? {} : { prefix }) }
}

/** Opens the database that was named. `create`: a PGlite folder may be new. @default false */
export function openNamed({ env, flags }: Pick<CommandInput, 'env' | 'flags'>, options: Partial<OpenOptions> = {}): Promise<Storage> {
  return openStorage(databaseSetting(env, flags.text('database')), { create: false, ...options, ...tablesOf(flags) })
}

/** Runs `run` with the database that was named, if it has the tables, and closes it. */
export async function withStorage(input: CommandInput, run: (storage: Storage) => Promise<ExitCode>): Promise<ExitCode> {
  const storage = await openNamed(input)
  try {
    await storage.check()
    return await run(storage)
  } finally {
    await storage.close()
  }
}
