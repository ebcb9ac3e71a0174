import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { createClient } from 'redis'
import { newId } from '../../src/core/ids.ts'
import { redisAddress } from '../../src/adapters/redis/connection-options.ts'
import { type Fetcher, createFetcher, SCRIPT_MOST } from '../../src/adapters/redis/fetcher.ts'
import { type Link, createLink } from '../../src/adapters/redis/link.ts'
import { sharedRedis } from './redis.ts'

const GROUP = 'fetcher'
const TOKEN = '1:me'
const MOST = 100

const shared = await sharedRedis()

suite('reading for leases, Redis', { skip: 'skipped' in shared ? shared.skipped : false }, () => {
  const url = 'url' in shared ? String(shared['url']) : ''
  const openClient = () => createClient({ url }).connect()
  let client: Awaited<ReturnType<typeof openClient>>
  let link: Link
  let fetcher: Fetcher

  before(async () => {
    client = await openClient()
    ;({ link, fetcher } = await open({ url }))
  })
  after(() => {
    client.destroy()
    link.close()
  })

  async function open(options: Parameters<typeof redisAddress>[0]) {
    const opened = createLink({ where: 'test', address: await redisAddress(options, 'test', 5_000), requestTimeoutMs: 5_000 })
    return { link: opened, fetcher: createFetcher(opened, 'test') }
  }

  /** A stream with so many entries, and a lease of it that is held. */
  async function partition(entries: number) {
    const stream = `fetcher:${newId()}`
    const lease = `${stream}:lease`
    await client.xGroupCreate(stream, GROUP, '0', { MKSTREAM: true })
    await Promise.all(Array.from({ length: entries }, (_, at) => client.xAdd(stream, '*', { body: `${stream} ${at}` })))
    await client.set(lease, TOKEN, { expiration: { type: 'PX', value: 60_000 } })
    return { stream, lease, token: TOKEN, group: GROUP, most: MOST }
  }
  type Partition = Awaited<ReturnType<typeof partition>>

  const fetch = async (from: Partition, by = fetcher): Promise<readonly string[]> =>
    (await by.fetch(from)).map(([, fields]) => String(fields?.[1]))
  const bodies = ({ stream }: Partition, from: number, to: number): readonly string[] =>
    Array.from({ length: to - from }, (_, at) => `${stream} ${from + at}`)
  const delivered = async ({ stream }: Partition): Promise<string> => (await client.xInfoGroups(stream))[0]!['last-delivered-id']
  const takeAway = ({ lease }: Partition): Promise<unknown> => client.set(lease, '2:another')

  test('each gets what is new in its stream, in order, and once', async () => {
    const partitions = await Promise.all(Array.from({ length: 40 }, () => partition(150)))
    const first = await Promise.all(partitions.map((each) => fetch(each)))
    const second = await Promise.all(partitions.map((each) => fetch(each)))
    for (const [at, each] of partitions.entries()) assert.deepEqual([...first[at]!, ...second[at]!], bodies(each, 0, 150))
    assert.deepEqual(await fetch(partitions[0]!), [])
  })

  test('for a lease that is with somebody else nothing is read, and the others go on', async () => {
    const [taken, held] = [await partition(150), await partition(150)]
    await takeAway(taken)
    const [refused, read] = await Promise.allSettled([fetch(taken), fetch(held)])
    assert.equal(refused.status === 'rejected' && refused.reason.code, 'LEASE_LOST')
    assert.deepEqual(read.status === 'fulfilled' && read.value, bodies(held, 0, MOST))
    assert.equal(await delivered(taken), '0-0')
  })

  test('a lease that is taken away, or runs out, after it was compared: nothing is read for it', async () => {
    for (const lose of [
      takeAway,
      async ({ lease }: Partition) => {
        await client.pExpire(lease, 1)
        while ((await client.exists(lease)) === 1) await new Promise((resolve) => setImmediate(resolve))
      },
    ]) {
      const [losing, held] = [await partition(300), await partition(300)]
      await Promise.all([fetch(losing), fetch(held)])
      const before = await delivered(losing)
      await lose(losing)
      const [refused, read] = await Promise.allSettled([fetch(losing), fetch(held)])
      assert.equal(refused.status === 'rejected' && refused.reason.code, 'LEASE_LOST')
      assert.equal(await delivered(losing), before)
      // It may have come in the same transaction, which was not carried out then.
      const rest = read.status === 'fulfilled' ? read.value : []
      assert.ok(rest.length >= SCRIPT_MOST)
      assert.deepEqual(rest, bodies(held, MOST, MOST + rest.length))
    }
  })

  test('a lease that was extended is read for all the same', async () => {
    const held = await partition(300)
    const first = await fetch(held)
    await client.pExpire(held.lease, 90_000)
    const second = await fetch(held)
    const third = await fetch(held)
    assert.deepEqual([...first, ...second, ...third], bodies(held, 0, first.length + second.length + third.length))
    assert.equal(second.length, SCRIPT_MOST)
    assert.equal(third.length, MOST)
  })

  test('a lease that was given back and taken anew is read for', async () => {
    const held = await partition(300)
    const first = await fetch(held)
    const again = { ...held, token: '2:me' }
    await client.set(held.lease, again.token)
    assert.deepEqual(await fetch(again), bodies(held, first.length, first.length + SCRIPT_MOST))
  })

  test('a connection that was lost watches nothing any more: it is compared anew', async () => {
    const taken = await partition(300)
    await fetch(taken)
    const before = await delivered(taken)
    await client.sendCommand(['CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'])
    await takeAway(taken)
    for (;;) {
      try {
        await link.call(['PING'])
        break
      } catch {
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    await assert.rejects(fetch(taken), { code: 'LEASE_LOST' })
    assert.equal(await delivered(taken), before)
  })

  test('a group that is gone is said to whom it belongs', async () => {
    const [gone, held] = [await partition(150), await partition(150)]
    await client.xGroupDestroy(gone.stream, GROUP)
    const [refused, read] = await Promise.allSettled([fetch(gone), fetch(held)])
    assert.equal(refused.status === 'rejected' && refused.reason.code, 'POSITION_LOST')
    assert.deepEqual(read.status === 'fulfilled' && read.value, bodies(held, 0, MOST))
  })

  for (const lacking of ['watch', 'mget', 'multi', 'exec'])
    test(`without the right to ${lacking}, scripts do it`, async (t) => {
      const name = `no-${lacking}`
      await client.sendCommand(['ACL', 'SETUSER', name, 'on', '>pass', '~*', '+@all', `-${lacking}`])
      const limited = await open({ url, username: name, password: 'pass' })
      t.after(async () => {
        limited.link.close()
        await client.sendCommand(['ACL', 'DELUSER', name])
      })
      const held = await partition(50)
      const got: string[] = []
      for (let more = true; more;) {
        const came = await fetch(held, limited.fetcher)
        got.push(...came)
        more = came.length > 0
      }
      assert.deepEqual(got, bodies(held, 0, 50))
    })
})
