import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import type { SqlExecutor } from './database.ts'
import { type Crashpoint, setCrashpointHook } from './crashpoint.ts'
import { type DomainEvent, defineEvent } from './event.ts'
import type { Invocation } from './handler.ts'
import { inboxOnce, inTransaction } from './inbox.ts'
import type { InboxStore } from './stores.ts'
import type { RunUnit, UnitScope } from './unit.ts'

const Placed = defineEvent<number>('order.OrderPlaced')
const invocation = (...events: DomainEvent[]): Invocation => ({ events, signal: new AbortController().signal, attempt: 1 })

afterEach(() => setCrashpointHook(undefined))

/** A store and its transactions in memory: what was recorded counts only after a commit, and one transaction runs at a time. */
function createStage() {
  const committed = new Set<string>()
  const log: string[] = []
  let tail: Promise<unknown> = Promise.resolve()
  let staged: string[] = []
  const inbox: InboxStore = {
    async record(_sql, handler, eventIds) {
      const fresh = eventIds.filter((id) => !committed.has(`${handler}:${id}`))
      staged.push(...fresh.map((id) => `${handler}:${id}`))
      return new Set(fresh)
    },
    countAttempt: async () => 1,
    sweep: async () => 0,
  }
  const sql: SqlExecutor = { query: async () => ({ rows: [] }) }
  const unit: UnitScope = { sql, closed: false, enqueue() {}, afterCommit() {}, track() {} }
  const runUnit: RunUnit = (fn) => {
    const run = tail.then(async () => {
      staged = []
      log.push('begin')
      try {
        const result = await fn(unit)
        for (const one of staged) committed.add(one)
        log.push('commit')
        return { result, receipts: [] }
      } catch (error) {
        log.push('rollback')
        throw error
      }
    })
    tail = run.catch(() => {})
    return run
  }
  return { inbox, runUnit, unit, log, committed }
}

test('each event is handled once, in the transaction that records it', async () => {
  const { inbox, runUnit, unit, log } = createStage()
  const handled: string[] = []
  const handler = inboxOnce(
    inbox,
    runUnit,
    'billing/invoice',
  )(async (call) => {
    assert.equal(call.unit, unit)
    log.push('handle')
    handled.push(...call.events.map(({ id }) => id))
  })
  const [a, b, c] = [Placed(1, { id: 'a' }), Placed(2, { id: 'b' }), Placed(3, { id: 'c' })]
  await handler(invocation(a, b))
  await handler(invocation(b, c))
  await handler(invocation(a, b, c))
  assert.deepEqual(handled, ['a', 'b', 'c'])
  assert.deepEqual(log, ['begin', 'handle', 'commit', 'begin', 'handle', 'commit', 'begin', 'commit'])
})

test('an event that comes twice in one batch is handled once', async () => {
  const { inbox, runUnit } = createStage()
  const handled: string[] = []
  const handler = inboxOnce(inbox, runUnit, 'billing/invoice')(async (call) => void handled.push(...call.events.map(({ id }) => id)))
  await handler(invocation(Placed(1, { id: 'a' }), Placed(2, { id: 'b' }), Placed(1, { id: 'a' })))
  assert.deepEqual(handled, ['a', 'b'])
})

test('concurrent duplicates lead to one effect, and another handler has its own', async () => {
  const { inbox, runUnit } = createStage()
  let handled = 0
  const once = inboxOnce(inbox, runUnit, 'billing/invoice')(async () => void handled++)
  const other = inboxOnce(inbox, runUnit, 'billing/mail')(async () => void (handled += 100))
  const event = Placed(1)
  await Promise.all([...Array.from({ length: 5 }, () => once(invocation(event))), other(invocation(event))])
  assert.equal(handled, 101)
})

test('a handler that fails leaves no record: the next try handles the event again', async () => {
  const { inbox, runUnit, committed, log } = createStage()
  let tries = 0
  const handler = inboxOnce(
    inbox,
    runUnit,
    'billing/invoice',
  )(async () => {
    if (++tries === 1) throw new Error('no paper')
  })
  const event = Placed(1, { id: 'a' })
  await assert.rejects(handler(invocation(event)), /no paper/)
  assert.equal(committed.size, 0)
  await handler(invocation(event))
  assert.equal(tries, 2)
  assert.deepEqual(log, ['begin', 'rollback', 'begin', 'commit'])
})

test('its crash points stand before the handler, before the commit and after it', async () => {
  const { inbox, runUnit, log } = createStage()
  setCrashpointHook((point: Crashpoint) => log.push(point))
  await inboxOnce(inbox, runUnit, 'billing/invoice')(async () => void log.push('handle'))(invocation(Placed(1)))
  assert.deepEqual(log, ['begin', 'inbox.beforeHandler', 'handle', 'inbox.beforeCommit', 'commit', 'inbox.afterCommit'])
})

test('inTransaction gives a transaction and remembers nothing', async () => {
  const { runUnit, unit, log, committed } = createStage()
  const handler = inTransaction(runUnit)(async (call) => assert.equal(call.unit, unit))
  const event = Placed(1)
  await handler(invocation(event))
  await handler(invocation(event))
  assert.deepEqual(log, ['begin', 'commit', 'begin', 'commit'])
  assert.equal(committed.size, 0)
})

for (const [name, layer] of [
  ['inboxOnce', (stage: ReturnType<typeof createStage>) => inboxOnce(stage.inbox, stage.runUnit, 'billing/invoice')],
  ['inTransaction', (stage: ReturnType<typeof createStage>) => inTransaction(stage.runUnit)],
] as const) {
  test(`${name}: a transaction ends when its handler is aborted, the call only when the handler has ended`, async () => {
    const stage = createStage()
    const abort = new AbortController()
    const { promise: handling, resolve: end } = Promise.withResolvers<void>()
    let ended = false
    const calling = layer(stage)(() => handling)({ ...invocation(Placed(1)), signal: abort.signal }).catch((error: unknown) => {
      ended = true
      return error
    })
    await new Promise(setImmediate)
    assert.deepEqual(stage.log, ['begin'])
    const reason = new Error('too late')
    abort.abort(reason)
    await new Promise(setImmediate)
    assert.deepEqual([stage.log, ended], [['begin', 'rollback'], false], 'the session is free, and the handler may still run')
    end()
    assert.equal(await calling, reason, 'what it ends with does not count')
    assert.equal(stage.committed.size, 0)
  })
}

test('a handler whose time passed while it waited for the session is not called', async () => {
  const { inbox, runUnit, committed } = createStage()
  const reason = new Error('too late')
  const handler = inboxOnce(inbox, runUnit, 'billing/invoice')(async () => assert.fail('called'))
  await assert.rejects(handler({ ...invocation(Placed(1)), signal: AbortSignal.abort(reason) }), reason)
  assert.equal(committed.size, 0)
})
