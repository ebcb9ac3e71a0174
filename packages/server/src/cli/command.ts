import type { FlagSpec, Flags } from './arguments.ts'
import type { Output } from './output.ts'
import type { Environment } from './settings.ts'

/** 0: done. 1: it was tried and failed, or a check found something. 2: wrong usage or a wrong setting; nothing was done. */
export type ExitCode = 0 | 1 | 2

/** What a command works with. */
export interface CommandInput {
  readonly flags: Flags
  readonly output: Output
  readonly env: Environment
  /** Aborts on the first SIGINT or SIGTERM of a stoppable command. */
  readonly signal: AbortSignal
}

/** One command of `waybill`. */
export interface Command {
  /** One or two words: `migrate`, `outbox ls`. */
  readonly name: string
  readonly summary: string
  /** Paragraphs for its own help, ready wrapped. */
  readonly description: readonly string[]
  readonly flags: Readonly<Record<string, FlagSpec>>
  /** The option whose values may be given without its name: `waybill outbox show 5`. */
  readonly positional?: string
  /** Left out of the help: started by other commands only. */
  readonly hidden?: boolean
  /** Whether `run` heeds its signal; a command that doesn't is ended by SIGINT as any process. */
  readonly stoppable?: boolean
  run(input: CommandInput): Promise<ExitCode>
}

/** Options that every command takes. */
export const COMMON_FLAGS: Readonly<Record<string, FlagSpec>> = {
  json: { help: 'print one JSON object (or nothing but JSON), for machines' },
  'env-file': { value: 'FILE', help: 'settings for what the environment leaves open (default .env, if there)' },
  help: { help: 'show this help', short: 'h' },
}
