import { execFile } from 'node:child_process'

/** A program that is not there, with what gives it. */
export class MissingToolError extends Error {
  override readonly name = 'MissingToolError'
}

/** How long a command may take where nothing else is said. */
const LIMIT_MS = 60_000
const OUTPUT_KEPT = 2_000
const OUTPUT_MAX_BYTES = 16 * 1024 * 1024

const SOURCES: Readonly<Record<string, string>> = {
  java: 'install a JDK 17 or newer',
  mvn: 'install Maven 3.8 or newer',
  go: 'install Go 1.24 or newer',
  python3: 'install Python 3 with pip',
  'apt-get': 'it is there on Debian and Ubuntu only',
  dpkg: 'it is there on Debian and Ubuntu only',
  openssl: 'install OpenSSL 3',
}

/**
 * Runs a program without a shell and gives back what it printed. `limitMs`: it is killed after that, default a minute.
 * Throws a `MissingToolError` where it isn't installed, an `Error` with its last output where it fails or takes too long.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>>; readonly limitMs?: number } = {},
): Promise<string> {
  const { cwd, env = {}, limitMs = LIMIT_MS } = options
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      {
        ...(cwd === undefined ? {} : { cwd }),
        env: { ...process.env, ...env },
        timeout: limitMs,
        killSignal: 'SIGKILL',
        maxBuffer: OUTPUT_MAX_BYTES,
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout)
        if (error.code === 'ENOENT')
          return reject(new MissingToolError(`${program} is not installed: ${SOURCES[program] ?? 'install it'}`, { cause: error }))
        const what = error.killed === true ? `took longer than ${limitMs / 1_000} s` : `failed with code ${error.code ?? error.signal}`
        const output = `${stdout}\n${stderr}`.trim().slice(-OUTPUT_KEPT)
        reject(new Error(`${program} ${args.slice(0, 3).join(' ')} ${what}:\n${output}`, { cause: error }))
      },
    )
    // Some ask questions where they could be answered.
    child.stdin?.end()
  })
}

/** What is said of a failure: its message, for people. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
