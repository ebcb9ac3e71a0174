// A relay as it is shipped, compiled, in a process of its own: argv is the folder of the compiled library and the URL of the database. Tells its parent
// what it drained, and stays until the parent lets go of it.
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'

const [, , library, url] = process.argv
const { createRelay } = await import(`${library}/index.js`)
const { postgresStorage } = await import(`${library}/postgres.js`)

const nowhere = {
  capabilities: { ordering: 'key', stopsKeyAtFailure: true, acknowledges: 'stored', delay: false },
  publish: async (messages) => messages.map(() => ({ kind: 'stored' })),
}
const storage = await postgresStorage(url)
process.send({ kind: 'ready' })
const startedAt = performance.now()
const rows = await createRelay({ store: storage.outbox, publishers: new Map([['default', nowhere]]) }).publishAllPending()
const ms = performance.now() - startedAt
process.send({ kind: 'drained', rows, ms, rssMaxMb: rssMaxKb() / 1024 })
await once(process, 'disconnect')
await storage.close()

/** Of this program: what `resourceUsage` says on Linux counts the parent that it was forked from. */
function rssMaxKb() {
  const status = '/proc/self/status'
  const line = existsSync(status) ? /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(status, 'utf8')) : null
  return line === null ? process.resourceUsage().maxRSS : Number(line[1])
}
