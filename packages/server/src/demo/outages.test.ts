import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type OutageEvent, createOutages } from './outages.ts'
import { planOutages } from './plan.ts'
import { isMarked } from './setup.ts'
import type { SupervisorEvent } from './supervisor.ts'

const root = mkdtempSync(join(tmpdir(), 'waybill-outages-'))
after(() => rmSync(root, { recursive: true }))

const progress = (invoices: number, newest: Readonly<Record<string, number>> = {}): SupervisorEvent => ({
  type: 'progress',
  invoices,
  deliveries: 0,
  kills: 0,
  newest,
})

test('the broker goes when the load is far enough, and has recovered when all consumers see what was made since it is back', async () => {
  const folder = mkdtempSync(join(root, 'run-'))
  const done: string[] = []
  const events: OutageEvent[] = []
  let told = (): void => {}
  const next = (type: OutageEvent['type']): Promise<void> =>
    new Promise((resolve) => (told = () => events.at(-1)?.type === type && resolve()))
  const outages = createOutages({
    folder,
    broker: { stop: async (mode) => void done.push(mode), start: async () => void done.push('start') },
    outages: planOutages(16),
    onEvent(event) {
      events.push(event)
      told()
    },
    onFailure: (error) => assert.fail(String(error)),
  })
  outages.see(progress(3))
  assert.deepEqual(done, [])
  const back = next('broker.back')
  outages.see(progress(4))
  await back
  assert.deepEqual(done, ['kill', 'start'])
  assert.deepEqual([isMarked(folder, 'gone', 0), isMarked(folder, 'back', 0), isMarked(folder, 'gone', 1)], [true, true, false])
  const later = Date.now() + 60_000
  outages.see(progress(8, { stock: later, revenue: later, ledger: 1 }))
  assert.equal(events.at(-1)?.type, 'broker.back')
  outages.see(progress(8, { stock: later, revenue: later, ledger: later }))
  assert.equal(events.at(-1)?.type, 'broker.recovered')

  const backAgain = next('broker.back')
  outages.see(progress(12, {}))
  await backAgain
  assert.deepEqual(done, ['kill', 'start', 'graceful', 'start'])
  // The road was not seen to flow: it counts until the end.
  assert.equal((await outages.end()).length, 2)
})

test('a broker that does not come back is told once, and nothing hangs', async () => {
  const failures: unknown[] = []
  const outages = createOutages({
    folder: mkdtempSync(join(root, 'run-')),
    broker: { stop: async () => {}, start: () => Promise.reject(new Error('no such file')) },
    outages: planOutages(16),
    onEvent: () => {},
    onFailure: (error) => failures.push(error),
  })
  outages.see(progress(5))
  assert.deepEqual(await outages.end(), [])
  assert.match(String(failures), /the broker could not be restarted: no such file/)
})
