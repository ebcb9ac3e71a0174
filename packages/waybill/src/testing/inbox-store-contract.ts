import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { newId } from '../core/ids.ts'
import type { Storage } from '../core/stores.ts'
import { type ContractTest, type StorageTraits, withStorage } from './contract-tools.ts'

/** The names of the tests that hold an inbox to "each effect once". */
export const INBOX_TESTS = {
  rollback: 'a rolled-back handler leaves no record, so its event is handled again',
  waits: 'a duplicate waits for the transaction that is recording the event, and then finds it',
  waitsForRollback: 'a duplicate waits for a transaction that is rolled back, and then handles the event itself',
  once: 'delivered many times at once, an event has its effect once',
} as const

const HANDLER = 'billing/invoice'
const FAILURE = new Error('rolled back on purpose')
// The longest that the first transaction stays open for a duplicate that does not wait to give itself away.
const LINGER_MS = 1000

/** What every inbox store must do. Runner-agnostic, as the outbox's. */
export function inboxStoreContract(test: ContractTest, make: () => Promise<Storage>, { sql = true }: StorageTraits = {}): void {
  const declare = withStorage(test, make)
  recordTests(declare)
  concurrencyTests(declare)
  attemptTests(declare)
  if (sql) {
    declare('the record and the effect are there together, or neither is', async (storage) => {
      const table = `waybill_test_effect_${newId().replaceAll('-', '')}`
      await storage.database.query(`create table ${table} (event_id text not null)`)
      try {
        for (const fails of [true, false, false, true]) {
          const handled = storage.database.transaction(async (executor) => {
            const fresh = await storage.inbox.record(executor, HANDLER, ['event-1'])
            for (const eventId of fresh) await executor.query(`insert into ${table} values ($1)`, [eventId])
            if (fails) throw FAILURE
          })
          await (fails ? assert.rejects(handled, FAILURE) : handled)
        }
        const { rows } = await storage.database.query<{ event_id: string }>(`select event_id from ${table}`)
        assert.deepEqual(
          rows.map((row) => row.event_id),
          ['event-1'],
        )
      } finally {
        await storage.database.query(`drop table ${table}`)
      }
    })
  }
}

type Declare = ReturnType<typeof withStorage>

function recordTests(declare: Declare): void {
  declare('an event is fresh once for each handler', async (storage) => {
    assert.deepEqual(await record(storage, ['a', 'b']), ['a', 'b'])
    assert.deepEqual(await record(storage, ['b', 'c', 'a']), ['c'])
    assert.deepEqual(await record(storage, ['a', 'b', 'c']), [])
    assert.deepEqual(await record(storage, ['a'], 'billing/other'), ['a'])
    assert.deepEqual(await record(storage, []), [])
  })

  declare('an event that is twice in one batch is fresh once', async (storage) => {
    assert.deepEqual(await record(storage, ['a', 'b', 'a']), ['a', 'b'])
  })

  declare(INBOX_TESTS.rollback, async (storage) => {
    await assert.rejects(
      storage.database.transaction(async (sql) => {
        await storage.inbox.record(sql, HANDLER, ['a'])
        throw FAILURE
      }),
      FAILURE,
    )
    assert.deepEqual(await record(storage, ['a']), ['a'])
  })

  declare('a sweep forgets what was handled long ago, so much at a time', async (storage) => {
    await record(storage, ['a', 'b', 'c'])
    assert.equal(await storage.inbox.sweep(3_600_000, 100), 0)
    await delay(5)
    assert.equal(await storage.inbox.sweep(1, 2), 2)
    assert.equal(await storage.inbox.sweep(1, 2), 1)
    assert.equal(await storage.inbox.sweep(1, 2), 0)
    assert.deepEqual(await record(storage, ['a']), ['a'])
  })
}

function concurrencyTests(declare: Declare): void {
  for (const [name, fails] of [
    [INBOX_TESTS.waits, false],
    [INBOX_TESTS.waitsForRollback, true],
  ] as const) {
    declare(name, async (storage) => {
      const log: string[] = []
      const recorded = Promise.withResolvers<void>()
      const hasty = new AbortController()
      const first = storage.database.transaction(async (sql) => {
        const fresh = await storage.inbox.record(sql, HANDLER, ['a'])
        recorded.resolve()
        assert.equal(fresh.size, 1)
        await delay(LINGER_MS, undefined, { signal: hasty.signal }).catch(() => undefined)
        log.push('the first ends')
        if (fails) throw FAILURE
      })
      await recorded.promise
      const second = record(storage, ['a']).then((fresh) => {
        log.push(`the second finds ${fresh.length} fresh`)
        hasty.abort()
      })
      await Promise.all([fails ? assert.rejects(first, FAILURE) : first, second])
      assert.deepEqual(log, ['the first ends', `the second finds ${fails ? 1 : 0} fresh`])
    })
  }

  declare(INBOX_TESTS.once, async (storage) => {
    const events = Array.from({ length: 8 }, (_, index) => `event-${index}`)
    const effects: string[] = []
    let found = 0
    // Batches that overlap, in different orders. Of those that find something fresh, the first and every third after it are rolled back, and delivered again.
    const deliver = async (batch: readonly string[]): Promise<void> => {
      const done: string[] = []
      try {
        await storage.database.transaction(async (sql) => {
          done.push(...(await storage.inbox.record(sql, HANDLER, batch)))
          await delay(1)
          if (done.length > 0 && found++ % 3 === 0) throw FAILURE
        })
        effects.push(...done)
      } catch (error) {
        if (error !== FAILURE) throw error
        await deliver(batch)
      }
    }
    await Promise.all(Array.from({ length: 8 }, (_, index) => deliver([...events.slice(index), ...events.slice(0, index)].slice(0, 4))))
    assert.deepEqual(effects.toSorted(), events)
  })
}

function attemptTests(declare: Declare): void {
  declare('attempts are counted per event and handler, and forgotten when the event is recorded', async (storage) => {
    const { inbox } = storage
    assert.deepEqual(
      [await inbox.countAttempt(HANDLER, 'a'), await inbox.countAttempt(HANDLER, 'a'), await inbox.countAttempt(HANDLER, 'a')],
      [1, 2, 3],
    )
    assert.equal(await inbox.countAttempt(HANDLER, 'b'), 1)
    assert.equal(await inbox.countAttempt('billing/other', 'a'), 1)
    await record(storage, ['a'])
    assert.equal(await inbox.countAttempt(HANDLER, 'a'), 1)
    assert.equal(await inbox.countAttempt(HANDLER, 'b'), 2)
    assert.equal(await inbox.countAttempt('billing/other', 'a'), 2)
  })

  declare('an attempt stays counted where the handler was rolled back', async (storage) => {
    assert.equal(await storage.inbox.countAttempt(HANDLER, 'a'), 1)
    await assert.rejects(
      storage.database.transaction(async (sql) => {
        await storage.inbox.record(sql, HANDLER, ['a'])
        throw FAILURE
      }),
      FAILURE,
    )
    assert.equal(await storage.inbox.countAttempt(HANDLER, 'a'), 2)
  })

  declare('attempts counted at once are all counted', async (storage) => {
    const counts = await Promise.all(Array.from({ length: 6 }, () => storage.inbox.countAttempt(HANDLER, 'a')))
    assert.deepEqual(
      counts.toSorted((left, right) => left - right),
      [1, 2, 3, 4, 5, 6],
    )
  })
}

async function record(storage: Storage, eventIds: readonly string[], handler = HANDLER): Promise<string[]> {
  return [...(await storage.database.transaction((sql) => storage.inbox.record(sql, handler, eventIds)))].toSorted()
}
