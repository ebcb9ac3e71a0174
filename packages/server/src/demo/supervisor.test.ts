import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { PlannedKill } from './plan.ts'
import { type SuperviseOptions, type SupervisorEvent, supervise } from './supervisor.ts'

const root = mkdtempSync(join(tmpdir(), 'waybill-supervisor-'))
after(() => rmSync(root, { recursive: true }))

const KILLS: readonly PlannedKill[] = [
  { point: 'relay.afterPublish', hit: 2, afterInvoices: 10 },
  { point: 'inbox.beforeCommit', hit: 1, afterInvoices: 20 },
]
const PLAN = JSON.stringify(KILLS)
/** Dies as the plan says, where there is a kill left. */
const DIE = `
const plan = ${PLAN}
const index = readdirSync(option('folder')).filter((name) => name.startsWith('kill-')).length
if (index < plan.length) {
  writeFileSync(option('folder') + '/kill-' + index, [option('run'), plan[index].point, plan[index].hit].join(' '), { flag: 'wx' })
  process.kill(process.pid, 'SIGKILL')
}`
const REPORT = '{ invoices: 1, deliveries: 1, newest: {}, trouble: undefined }'

let scripts = 0
/** Runs workers that do what `body` says. */
function superviseScript(body: string, options: Partial<SuperviseOptions> = {}): { events: SupervisorEvent[]; ended: Promise<number> } {
  const folder = mkdtempSync(join(root, 'run-'))
  const script = join(root, `worker-${scripts++}.mjs`)
  writeFileSync(
    script,
    `import { readdirSync, writeFileSync } from 'node:fs'\nconst option = (name) => { const at = process.argv.indexOf('--' + name); return at === -1 ? undefined : process.argv[at + 1] }\nprocess.on('disconnect', () => process.exit(9))\n${body}\n`,
  )
  const events: SupervisorEvent[] = []
  const ended = supervise({
    folder,
    kills: KILLS,
    signal: new AbortController().signal,
    onEvent: (event) => events.push(event),
    script,
    ...options,
  })
  return { events, ended }
}

test('a worker is started again after each kill, until one comes to the end', async () => {
  const { events, ended } = superviseScript(`${DIE}\nprocess.exit(0)`)
  assert.equal(await ended, 2)
  assert.deepEqual(
    events.flatMap((event) => (event.type === 'killed' ? [[event.kill.point, event.kills]] : [])),
    [
      ['relay.afterPublish', 1],
      ['inbox.beforeCommit', 2],
    ],
  )
})

test('a worker that comes to its end without its crash point leaves fewer kills than planned', async () => {
  const { ended } = superviseScript(`if (option('run') === '0') { ${DIE} }\nprocess.exit(0)`)
  assert.equal(await ended, 1)
})

test('a SIGKILL from elsewhere does not count as a kill', async () => {
  const { ended } = superviseScript(`process.kill(process.pid, 'SIGKILL')`)
  await assert.rejects(ended, /killed by SIGKILL, not at its crash point/)
})

test('a worker that fails by itself ends the demo with what it said', async () => {
  await assert.rejects(
    superviseScript(`process.send({ failure: 'no room left' }, () => process.exit(1))`).ended,
    /failed by itself: no room left/,
  )
  await assert.rejects(superviseScript(`process.exit(3)`, { kills: [] }).ended, /exit code 3/)
})

test('a worker that makes no progress is given up', async () => {
  const { ended } = superviseScript(`setInterval(() => process.send(${REPORT}), 20)`, { stallMs: 300 })
  await assert.rejects(
    ended,
    (error: Error & { code?: string }) => error.code === 'TIMEOUT' && /no progress for 0\.3 s/.test(error.message),
  )
})

test('all workers together have a limit too', async () => {
  const { ended } = superviseScript(`let n = 0; setInterval(() => process.send({ ...${REPORT}, invoices: ++n }), 20)`, { limitMs: 300 })
  await assert.rejects(ended, /longer than its limit/)
})

test('stopping it ends the worker first', async () => {
  const abort = new AbortController()
  const { ended } = superviseScript(`setInterval(() => process.send({ ...${REPORT}, invoices: process.pid }), 20)`, {
    signal: abort.signal,
    onEvent: (event) => {
      if (event.type !== 'progress') return
      worker = event.invoices
      abort.abort()
    },
  })
  let worker = 0
  await assert.rejects(ended, (error: Error & { code?: string }) => error.code === 'CLOSED')
  assert.ok(worker > 0)
  assert.throws(() => process.kill(worker, 0), /ESRCH/)
})

test('several work at a time; each that was killed is replaced, and the counts of all are one', async () => {
  const body = `process.send({ invoices: 5, deliveries: 10, newest: { stock: Number(option('slot')) }, trouble: undefined }, () => {
    if (option('slot') === '1') { ${DIE} }
    process.exit(0)
  })`
  const { events, ended } = superviseScript(body, { processes: 2 })
  assert.equal(await ended, 2)
  const last = events.findLast((event) => event.type === 'progress')
  assert.deepEqual(last?.type === 'progress' && [last.invoices, last.deliveries, last.newest], [5, 40, { stock: 1 }])
  assert.deepEqual(
    events.flatMap((event) => (event.type === 'killed' ? [event.slot] : [])),
    [1, 1],
  )
})

test('where one fails by itself, the others are ended too', async () => {
  const body = `if (option('slot') === '1') process.exit(4)
    setInterval(() => process.send({ ...${REPORT}, invoices: process.pid }), 20)`
  const { events, ended } = superviseScript(body, { processes: 2 })
  await assert.rejects(ended, /exit code 4/)
  for (const event of events) if (event.type === 'progress') assert.throws(() => process.kill(event.invoices, 0), /ESRCH/)
})
