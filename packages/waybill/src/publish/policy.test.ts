import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isWaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { defineEvent } from '../core/event.ts'
import { PublishStrategies, type PublishConfig, type PublishPreset } from '../core/publish-config.ts'
import { createRegistry } from '../core/registry.ts'
import { createPolicies, type Policies, resolvePolicy } from './policy.ts'

const Placed = defineEvent('order.Placed')
const Paid = defineEvent('order.Paid', { publish: { strategy: 'HYBRID_RELIABLE', timeoutMs: 70 } })
const Moved = defineEvent('stock.Moved')

function setup(options: { hasOutbox?: boolean; sales?: PublishConfig | PublishPreset } = {}): Policies {
  const contexts = [
    { name: 'sales', events: [Placed, Paid], publish: options.sales },
    { name: 'stock', events: [Moved] },
  ]
  return createPolicies({ registry: createRegistry(contexts), contexts, hasOutbox: options.hasOutbox ?? true })
}

const refused = (run: () => unknown, ...codes: WaybillErrorCode[]): void => assert.throws(run, (error) => isWaybillError(error, ...codes))

test('the defaults follow from the scope and from whether there is an outbox', () => {
  const base = { timeoutMs: 1_000, priority: 5, decidedBy: 'default' }
  assert.deepEqual(resolvePolicy({ hasOutbox: true, where: 'x' }), { strategy: 'HYBRID_FAST', scope: 'INTRA_BC', ...base })
  assert.deepEqual(resolvePolicy({ hasOutbox: false, where: 'x' }), { strategy: 'SYNC_ONLY', scope: 'INTRA_BC', ...base })
  for (const scope of ['INTER_BC', 'EXTERNAL'] as const) {
    assert.deepEqual(resolvePolicy({ context: { scope }, hasOutbox: true, where: 'x' }), { strategy: 'ASYNC_ONLY', scope, ...base })
    refused(() => resolvePolicy({ context: { scope }, hasOutbox: false, where: 'x' }), 'NO_OUTBOX')
  }
})

test('the most specific rule wins, field by field, and the receipt names the rule that named the strategy', () => {
  const policies = setup({ sales: { strategy: 'SYNC_ONLY', timeoutMs: 10, priority: 1 } })
  assert.deepEqual(policies.of('order.Placed'), {
    strategy: 'SYNC_ONLY',
    scope: 'INTRA_BC',
    timeoutMs: 10,
    priority: 1,
    decidedBy: 'context',
  })
  assert.deepEqual(policies.of('order.Paid'), {
    strategy: 'HYBRID_RELIABLE',
    scope: 'INTRA_BC',
    timeoutMs: 70,
    priority: 1,
    decidedBy: 'event',
  })
  policies.configureEvent(Paid, { priority: 2 })
  assert.deepEqual(policies.of('order.Paid'), {
    strategy: 'HYBRID_RELIABLE',
    scope: 'INTRA_BC',
    timeoutMs: 70,
    priority: 2,
    decidedBy: 'event',
  })
  assert.deepEqual(policies.of('order.Paid', { strategy: 'ASYNC_ONLY', priority: 9 }), {
    strategy: 'ASYNC_ONLY',
    scope: 'INTRA_BC',
    timeoutMs: 70,
    priority: 9,
    decidedBy: 'call',
  })
  assert.equal(policies.of('order.Paid', { priority: 0 }).decidedBy, 'event')
  assert.equal(policies.of('stock.Moved').decidedBy, 'default')
})

test('presets are configurations, at every place', () => {
  const policies = setup({ sales: 'INTER_BC_RELIABLE' })
  assert.deepEqual(policies.of('order.Placed'), {
    ...PublishStrategies.INTER_BC_RELIABLE,
    timeoutMs: 1_000,
    priority: 5,
    decidedBy: 'context',
  })
  policies.configureEvent('order.Placed', 'CRITICAL_HYBRID')
  assert.deepEqual(policies.of('order.Placed'), { ...PublishStrategies.CRITICAL_HYBRID, decidedBy: 'event' })
  assert.deepEqual(policies.of('order.Placed', 'INTRA_BC_FAST'), { ...PublishStrategies.INTRA_BC_FAST, decidedBy: 'call' })
})

test('a change takes effect on the next publish, replaces the one before, and is not changed from outside afterwards', () => {
  const policies = setup()
  const config = { strategy: 'ASYNC_ONLY' as const, priority: 3 }
  policies.configureEvent(Placed, config)
  Object.assign(config, { strategy: 'SYNC_ONLY' })
  assert.deepEqual([policies.of('order.Placed').strategy, policies.of('order.Placed').priority], ['ASYNC_ONLY', 3])
  policies.configureEvent(Placed, { strategy: 'SYNC_ONLY' })
  assert.deepEqual([policies.of('order.Placed').strategy, policies.of('order.Placed').priority], ['SYNC_ONLY', 5])
  policies.configureEvent(Placed, {})
  policies.configureBoundedContext('sales', { strategy: 'ASYNC_ONLY' })
  assert.deepEqual([policies.of('order.Placed').strategy, policies.of('order.Placed').decidedBy], ['ASYNC_ONLY', 'context'])
  assert.equal(policies.of('stock.Moved').strategy, 'HYBRID_FAST')
})

test('a bad change is refused whole and changes nothing', () => {
  const policies = setup()
  const before = ['order.Placed', 'order.Paid', 'stock.Moved'].map((type) => policies.of(type))
  refused(() => policies.configureEvent('order.Lost', {}), 'UNKNOWN_EVENT')
  refused(() => policies.configureBoundedContext('shipping', {}), 'INVALID_OPTION')
  refused(() => policies.configureEvent(Placed, { strategy: 'SOMETIMES' as never }), 'UNKNOWN_STRATEGY')
  refused(() => policies.configureEvent(Placed, 'FAST' as never), 'UNKNOWN_STRATEGY')
  for (const bad of [{ priority: 11 }, { timeoutMs: -1 }, { timeoutMs: Number.NaN }, { prority: 1 }, null])
    refused(() => policies.configureEvent(Placed, bad as never), 'INVALID_OPTION')
  refused(() => policies.configureEvent(Placed, { priority: 1, strategy: 'HYBRID_FAST', scope: 'EXTERNAL' }), 'HYBRID_FAST_ACROSS_CONTEXTS')
  refused(
    () => policies.configureBoundedContext('sales', { priority: 1, strategy: 'HYBRID_FAST', scope: 'INTER_BC' }),
    'HYBRID_FAST_ACROSS_CONTEXTS',
  )
  refused(() => policies.of('order.Placed', { scope: 'INTER_BC', strategy: 'HYBRID_FAST' }), 'HYBRID_FAST_ACROSS_CONTEXTS')
  assert.deepEqual(
    ['order.Placed', 'order.Paid', 'stock.Moved'].map((type) => policies.of(type)),
    before,
  )
})

test("a context's change is refused where it would break one of its events", () => {
  const policies = setup()
  policies.configureEvent(Placed, { strategy: 'HYBRID_FAST' })
  refused(() => policies.configureBoundedContext('sales', { scope: 'INTER_BC' }), 'HYBRID_FAST_ACROSS_CONTEXTS')
  assert.equal(policies.of('order.Paid').scope, 'INTRA_BC')
})

test('without an outbox a durable strategy is refused, and what was not declared durable still goes', () => {
  const policies = setup({ hasOutbox: false })
  refused(() => policies.of('order.Paid'), 'NO_OUTBOX')
  refused(() => policies.configureEvent(Placed, { strategy: 'ASYNC_ONLY' }), 'NO_OUTBOX')
  assert.equal(policies.of('order.Placed').strategy, 'SYNC_ONLY')
  policies.configureBoundedContext('sales', { timeoutMs: 5 })
  assert.equal(policies.of('order.Placed').timeoutMs, 5)
})

const anyConfig: fc.Arbitrary<PublishConfig> = fc.record(
  {
    strategy: fc.constantFrom('SYNC_ONLY', 'ASYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'),
    scope: fc.constantFrom('INTRA_BC', 'INTER_BC', 'EXTERNAL'),
    timeoutMs: fc.integer({ min: 1, max: 600_000 }),
    priority: fc.integer({ min: 0, max: 9 }),
  },
  { requiredKeys: [] },
)

test('resolution equals looking the fields up one after the other', () => {
  const rules = fc.record(
    { call: anyConfig, event: anyConfig, definition: anyConfig, context: anyConfig, hasOutbox: fc.boolean() },
    { requiredKeys: ['hasOutbox'] },
  )
  fc.assert(
    fc.property(rules, (given) => {
      const merged: PublishConfig = { ...given.context, ...given.definition, ...given.event, ...given.call }
      const scope = merged.scope ?? 'INTRA_BC'
      const strategy =
        merged.strategy ??
        {
          INTRA_BC: given.hasOutbox ? ('HYBRID_FAST' as const) : ('SYNC_ONLY' as const),
          INTER_BC: 'ASYNC_ONLY' as const,
          EXTERNAL: 'ASYNC_ONLY' as const,
        }[scope]
      const resolve = (): unknown => resolvePolicy({ ...given, where: 'x' })
      if (strategy === 'HYBRID_FAST' && scope !== 'INTRA_BC') return refused(resolve, 'HYBRID_FAST_ACROSS_CONTEXTS')
      if (strategy !== 'SYNC_ONLY' && !given.hasOutbox) return refused(resolve, 'NO_OUTBOX')
      const deciders = { call: given.call, event: given.event ?? given.definition, context: given.context }
      const decidedBy = given.call?.strategy
        ? 'call'
        : given.event?.strategy || given.definition?.strategy
          ? 'event'
          : deciders.context?.strategy
            ? 'context'
            : 'default'
      assert.deepEqual(resolve(), { strategy, scope, timeoutMs: merged.timeoutMs ?? 1_000, priority: merged.priority ?? 5, decidedBy })
    }),
    { numRuns: 1_000 },
  )
})

test('whatever is configured in whatever order, what is cached is what would be worked out anew', () => {
  const type = fc.constantFrom('order.Placed', 'order.Paid', 'stock.Moved')
  const step = fc.oneof(
    fc.record({ do: fc.constant('event' as const), type, config: anyConfig }),
    fc.record({ do: fc.constant('context' as const), name: fc.constantFrom('sales', 'stock'), config: anyConfig }),
    fc.record({ do: fc.constant('read' as const), type }),
  )
  const owners: Record<string, string> = { 'order.Placed': 'sales', 'order.Paid': 'sales', 'stock.Moved': 'stock' }
  const definitions: Record<string, PublishConfig> = { 'order.Paid': Paid.options.publish as PublishConfig }
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const policies = setup()
      const events: Record<string, PublishConfig> = {}
      const contexts: Record<string, PublishConfig> = {}
      const fresh = (name: string): unknown =>
        resolvePolicy({
          event: events[name],
          definition: definitions[name],
          context: contexts[owners[name]!],
          hasOutbox: true,
          where: name,
        })
      for (const current of steps) {
        if (current.do === 'read') assert.deepEqual(policies.of(current.type), fresh(current.type))
        else {
          try {
            if (current.do === 'event') policies.configureEvent(current.type, current.config)
            else policies.configureBoundedContext(current.name, current.config)
          } catch (error) {
            assert.ok(isWaybillError(error, 'HYBRID_FAST_ACROSS_CONTEXTS'))
            continue
          }
          if (current.do === 'event') events[current.type] = current.config
          else contexts[current.name] = current.config
        }
      }
      for (const name of Object.keys(owners)) assert.deepEqual(policies.of(name), fresh(name))
    }),
  )
})
