import { readFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { messageOf } from './command.ts'
import { isServiceName } from './names.ts'
import { ownServer } from './own-server.ts'

// A process that holds one server: `node keeper.ts NAME --until-input-ends` or `node keeper.ts NAME --state FILE`. It writes where the server is, as one
// line of JSON on its output or into the file, and stops the server when its input ends, or the file is gone. What can't be started is a line with `error`.

/** How soon a server stops after its file is gone. */
const POLL_MS = 200

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { state: { type: 'string' }, 'until-input-ends': { type: 'boolean' } },
})
const [name = ''] = positionals
if (!isServiceName(name)) throw new Error(`the keeper knows no server ${JSON.stringify(name)}`)

try {
  const server = await ownServer(name)
  const { url, host, port, version, extra, pid } = server
  await tell({ name, url, host, port, version, extra, pid, keeper: process.pid, provider: 'installed' })
  await end()
  await server.close()
} catch (error) {
  await tell({ error: messageOf(error) })
  process.exitCode = 1
}

async function tell(what: Readonly<Record<string, unknown>>): Promise<void> {
  const line = `${JSON.stringify(what)}\n`
  if (values.state === undefined) return void process.stdout.write(line)
  // Whole or not there.
  await writeFile(`${values.state}.new`, line, { mode: 0o600 })
  await rename(`${values.state}.new`, values.state)
}

function end(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
    const { state } = values
    if (state === undefined) {
      process.stdin.once('end', () => resolve()).resume()
      return
    }
    const timer = setInterval(() => {
      if (isOurs(state)) return
      clearInterval(timer)
      resolve()
    }, POLL_MS)
  })
}

/** Whether the file is there and still tells of this process: of two that were started at once, the first one goes. */
function isOurs(state: string): boolean {
  try {
    return (JSON.parse(readFileSync(state, 'utf8')) as { readonly keeper?: number }).keeper === process.pid
  } catch {
    return false
  }
}
