import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { createKeyedPool, type KeyedPool } from './keyed-pool.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const turns = async (count: number): Promise<void> => {
  for (let done = 0; done < count; done++) await turn()
}

suite('keyed pool', () => {
  test('property: order per key, never more than `concurrency` at work, nothing lost, whatever tasks take, return or throw', async () => {
    const task = fc.record({
      key: fc.integer({ min: 0, max: 5 }),
      // Without delay: no promise at all. `asideTurns`: a pause in the middle that gives its place away.
      turns: fc.option(fc.nat(3), { nil: undefined }),
      asideTurns: fc.option(fc.nat(3), { nil: undefined }),
      fails: fc.boolean(),
      before: fc.nat(1),
    })
    await fc.assert(
      fc.asyncProperty(
        fc.array(task, { maxLength: 60 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 8 }),
        async (tasks, concurrency, queueMax) => {
          const errors: unknown[] = []
          const pool = createKeyedPool({ concurrency, queueMax, onError: (error) => errors.push(error) })
          const started = new Map<number, number[]>()
          const busy = new Set<number>()
          let working = 0
          const enter = (): void => {
            working++
            assert.ok(working <= concurrency, `${working} at work`)
          }
          for (const [index, { key, turns: delay, asideTurns, fails, before }] of tasks.entries()) {
            await turns(before)
            await pool.room()
            pool.run(`${key}`, () => {
              assert.ok(!busy.has(key), 'two of a key at once')
              busy.add(key)
              enter()
              started.set(key, [...(started.get(key) ?? []), index])
              const end = (): void => {
                working--
                busy.delete(key)
                if (fails) throw new Error(`task ${index}`)
              }
              return delay === undefined ? end() : slowly(pool, delay, asideTurns, end)
            })
            assert.ok(pool.size <= queueMax)
          }
          await pool.idle()
          assert.equal(pool.size, 0)
          assert.equal(working, 0)
          const byKey = Map.groupBy(tasks.keys(), (index) => tasks[index]!.key)
          for (const [key, expected] of byKey) assert.deepEqual(started.get(key), expected)
          assert.equal(errors.length, tasks.filter(({ fails }) => fails).length)
          async function slowly(of: KeyedPool, count: number, aside: number | undefined, end: () => void): Promise<void> {
            await turns(count)
            if (aside !== undefined) {
              working--
              await of.aside(turns(aside))
              enter()
            }
            end()
          }
        },
      ),
      { numRuns: 150 },
    )
  })

  test('a task that needs no promise is followed at once by the next of its key', async () => {
    const pool = createKeyedPool({ concurrency: 1, queueMax: 10 })
    const log: string[] = []
    const gate = Promise.withResolvers<void>()
    pool.run('a', () => gate.promise)
    for (const name of ['one', 'two', 'three']) pool.run('a', () => void log.push(name))
    gate.resolve()
    await pool.idle()
    assert.deepEqual(log, ['one', 'two', 'three'])
    pool.run('a', () => void log.push('four'))
    assert.equal(log.at(-1), 'four', 'with a free hand it runs inside run()')
  })

  test('a full pool refuses, and says when there is room', async () => {
    const pool = createKeyedPool({ concurrency: 1, queueMax: 2 })
    const gate = Promise.withResolvers<void>()
    pool.run('a', () => gate.promise)
    assert.equal(pool.room(), undefined)
    pool.run('b', () => {})
    assert.throws(() => pool.run('c', () => {}), { code: 'QUEUE_FULL' })
    const room = pool.room()
    assert.ok(room !== undefined)
    gate.resolve()
    await room
    pool.run('c', () => {})
    await pool.idle()
  })

  test('waiting for room ends when its signal aborts', async () => {
    const pool = createKeyedPool({ concurrency: 1, queueMax: 1 })
    const gate = Promise.withResolvers<void>()
    pool.run('a', () => gate.promise)
    const stop = new AbortController()
    const room = pool.room(stop.signal)
    stop.abort()
    await room
    assert.equal(pool.room(stop.signal), undefined)
    gate.resolve()
    await pool.idle()
  })

  test('a key with a long queue does not keep keys beyond the first `concurrency` waiting for all of it', async () => {
    const pool = createKeyedPool({ concurrency: 1, queueMax: 100 })
    const log: string[] = []
    for (let n = 0; n < 10; n++) pool.run('long', async () => void log.push(`long ${n}`))
    pool.run('short', async () => void log.push('short'))
    await pool.idle()
    assert.ok(log.indexOf('short') <= 2, log.join())
  })

  test('tasks may start tasks, thousands deep', async () => {
    const pool = createKeyedPool({ concurrency: 10_000, queueMax: 100_000 })
    let count = 0
    const next = (n: number) => (): void => {
      count++
      if (n > 0) pool.run(`k${n}`, next(n - 1))
      if (n > 0) pool.run('same', () => {})
    }
    pool.run('first', next(20_000))
    await pool.idle()
    assert.equal(count, 20_001)
  })

  test('has() tells whether a key has tasks', async () => {
    const pool = createKeyedPool({ concurrency: 1, queueMax: 10 })
    const gate = Promise.withResolvers<void>()
    pool.run('a', () => gate.promise)
    pool.run('b', () => {})
    assert.deepEqual([pool.has('a'), pool.has('b'), pool.has('c')], [true, true, false])
    gate.resolve()
    await pool.idle()
    assert.deepEqual([pool.has('a'), pool.has('b')], [false, false])
  })

  test('memory does not grow with the keys that were seen', async () => {
    const pool = createKeyedPool({ concurrency: 16, queueMax: 1000 })
    const heap = async (): Promise<number> => {
      // Twice, with a turn between: what earlier tests left behind goes with the first.
      for (let round = 0; round < 2; round++) {
        globalThis.gc!()
        await turn()
      }
      return process.memoryUsage().heapUsed
    }
    const burst = async (from: number): Promise<void> => {
      for (let n = from; n < from + 100_000; n++) {
        await pool.room()
        pool.run(`key-${n}`, n % 2 === 0 ? () => {} : async () => {})
      }
      await pool.idle()
    }
    if (globalThis.gc === undefined) (await import('node:v8')).setFlagsFromString('--expose-gc')
    globalThis.gc ??= (await import('node:vm')).runInNewContext('gc') as NodeJS.GCFunction
    await burst(0)
    const before = await heap()
    await burst(1_000_000)
    await burst(2_000_000)
    const more = (await heap()) - before
    assert.ok(more < 5 * 1024 * 1024, `${more} bytes more`)
  })

  test('options out of range are refused', () => {
    for (const options of [
      { concurrency: 0, queueMax: 1 },
      { concurrency: 1, queueMax: 0 },
      { concurrency: 1.5, queueMax: 1 },
      { concurrency: Infinity, queueMax: 1 },
    ]) {
      assert.throws(() => createKeyedPool(options), { code: 'INVALID_OPTION' })
    }
  })
})
