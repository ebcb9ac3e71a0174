import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createModel, type Fate, LEASE_MS, type Model, type Sight, type Variant, type World } from '../../test/relay-model.ts'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { pgliteStorage } from '../adapters/postgres/pglite.ts'
import { createFakeClock } from '../testing/fake-clock.ts'

// Any interleaving of appends, claims, sends, marks, crashes, frozen relays and operators, one step at a time: nothing is lost, first occurrences of a key
// come in its order, nothing comes that was never committed, and nobody works on what is another's. `test/relay-model.ts` is the judge.

type Step = { readonly name: string; readonly run: (model: Model) => Promise<void> }

const index = fc.nat(5)
const fate = fc.constantFrom<Fate>('stored', 'stored', 'stored', 'refused', 'cut before', 'cut after')
const step = <T extends unknown[]>(
  name: string,
  run: (model: Model, ...args: T) => Promise<void>,
  ...args: { [at in keyof T]: fc.Arbitrary<T[at]> }
): fc.Arbitrary<Step> =>
  fc.tuple<T>(...args).map((values) => ({ name: `${name}(${JSON.stringify(values).slice(1, -1)})`, run: (model) => run(model, ...values) }))

const append = step(
  'append',
  (model, keys, priority, holdMs, scheduled, rollback) => model.append(keys, { priority, holdMs, scheduled }, rollback),
  fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }),
  fc.constantFrom(5, 5, 5, 0, 9),
  fc.constantFrom(0, 0, 0, LEASE_MS / 2),
  fc.constantFrom(false, false, false, false, true),
  fc.constantFrom(false, false, false, false, false, true),
)
const claim = step('claim', (model, which, limit) => model.claim(which, limit), index, fc.constantFrom(1, 3, 10))
const send = step('send', (model, ...given) => model.send(...given), index, fc.constantFrom(1, 2, 10), fate)
const settle = step('settle', (model, ...given) => model.settle(...given), index, fc.boolean())
const pass = step('pass', (model, part) => model.pass(part), fc.constantFrom(0.4, 0.4, 1.1))

/** As often as they happen; what is rare in life is frequent here. */
const steps: readonly fc.Arbitrary<Step>[] = [
  ...Array.from({ length: 6 }, () => [append, claim, send, settle]).flat(),
  ...Array.from({ length: 2 }, () => [claim, send, settle, pass]).flat(),
  step('join', (model) => model.join()),
  step('join again', (model) => model.join()),
  step('renew', (model, which) => model.renew(which), index),
  step('renew', (model, which) => model.renew(which), index),
  step('leave', (model, which) => model.leave(which), index),
  step('crash', (model, which) => model.crash(which), index),
  step('retry', (model) => model.retry()),
  step('skip', (model, key) => model.skip(key), index),
  step('suspend', (model, key) => model.suspend(key), index),
  step('retire', (model, key) => model.retire(key), index),
]

type Command = fc.AsyncCommand<object, Model>

const commands = fc.commands(
  steps.map((arbitrary) =>
    arbitrary.map(({ name, run }): Command => ({ check: () => true, run: (_model, real) => run(real), toString: () => name })),
  ),
  { maxCommands: 120, size: 'max' },
)

/** The property, over worlds that `make` gives. */
function holdsIn(
  make: () => Promise<World>,
  variant: Variant,
  seen: Map<Sight, number> = new Map(),
): fc.IAsyncProperty<[Iterable<Command>]> {
  return fc.asyncProperty(commands, async (sequence) => {
    const model = createModel(await make(), variant, seen)
    await model.join()
    await model.join()
    await fc.asyncModelRun(() => ({ model: {}, real: model }), sequence)
    await model.drain()
  })
}

async function memoryWorld(): Promise<World> {
  const clock = createFakeClock()
  return { storage: memoryStorage({ clock }), now: clock.now, pass: (ms) => clock.advance(Math.round(ms)) }
}

const SIGHTS: readonly Sight[] = ['redelivered', 'zombie mark', 'taken over', 'suspect', 'parked', 'handed over']

test('whatever happens in between, nothing is lost, and first occurrences stay in the order of each key: in memory', async () => {
  const seen = new Map<Sight, number>()
  await fc.assert(holdsIn(memoryWorld, {}, seen), { numRuns: 1_500 })
  for (const sight of SIGHTS) assert.ok((seen.get(sight) ?? 0) > 0, `no run has seen ${sight}: that was not tested`)
})

test('whatever happens in between, nothing is lost, and first occurrences stay in the order of each key: on PostgreSQL', async (t) => {
  const storage = await pgliteStorage('memory://')
  t.after(() => storage.close())
  await storage.migrate()
  const { database } = storage
  const run = (text: string, params: unknown[] = []): Promise<unknown> => database.query(text, params)
  const make = async (): Promise<World> => {
    await run('truncate waybill_outbox')
    await run('delete from waybill_relay')
    await run('update waybill_lease set owner = null, expires_at = null')
    let passedMs = 0
    return {
      storage,
      now: () => Date.now() + passedMs,
      // Not the database's time moves on: what it is compared with moves back.
      async pass(ms) {
        passedMs += ms
        const back = `- $1::float8 * interval '1 millisecond'`
        await run(`update waybill_lease set expires_at = expires_at ${back} where expires_at is not null`, [ms])
        await run(`update waybill_relay set expires_at = expires_at ${back}`, [ms])
        await run(`update waybill_outbox set hold_until = hold_until ${back}, available_at = available_at ${back}`, [ms])
      },
    }
  }
  const seen = new Map<Sight, number>()
  await fc.assert(holdsIn(make, {}, seen), { numRuns: 20 })
  for (const sight of ['redelivered', 'taken over'] as const) assert.ok((seen.get(sight) ?? 0) > 0, `no run has seen ${sight}`)
})

/** Designs that break a promise, and what is said of each. */
const BROKEN: readonly (readonly [name: string, said: RegExp, variant: Variant])[] = [
  [
    'marks without the fence',
    /fence/,
    { store: (store) => ({ ...store, markPublished: async (_relayId, rowIds) => (await store.retire(rowIds), rowIds.length) }) },
  ],
  [
    'claims keys that are busy',
    /exclusive/,
    { store: (store) => ({ ...store, claim: (relayId, options) => store.claim(relayId, { ...options, busy: [] }) }) },
  ],
  [
    'gives up shards that are in use',
    /exclusive|is with/,
    { store: (store) => ({ ...store, acquire: (relayId, leaseMs) => store.acquire(relayId, leaseMs, []) }) },
  ],
  [
    'holds a row, and not its key',
    /order/,
    {
      store(store) {
        const waiting = new Set<string>()
        return {
          ...store,
          hold: async (_relayId, failures) => failures.forEach(({ rowId }) => waiting.add(rowId)),
          claim: async (...given) => (await store.claim(...given)).filter((row) => !waiting.delete(row.rowId)),
        }
      },
    },
  ],
  [
    'takes unknown for stored',
    /lost|order/,
    { verdict: (verdict) => ({ ...verdict, published: [...verdict.published, ...verdict.unsure] }) },
  ],
]

for (const [name, said, variant] of BROKEN) {
  test(`a relay that ${name} is found out`, async () => {
    const found = await fc.check(holdsIn(memoryWorld, variant), { numRuns: 1_000, seed: 20_26, endOnFailure: true })
    assert.equal(found.failed, true)
    assert.match(String((found.errorInstance as Error | undefined)?.message), said)
  })
}
