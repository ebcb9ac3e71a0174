import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { newId } from 'waybill'
import type { Delivery, Message, Transport } from 'waybill'
import { createQueueService } from './queue-service.ts'
import { type QueueClient, escapeName, queueTransport } from './queue-transport.ts'

// What the contract can't know of: visibility timeouts, and a service that fails.

const forever = new AbortController().signal
const message = (key: string): Message => ({ id: newId(), topic: 'orders', key, headers: {}, body: Buffer.from(key) })

/** The next array of a subscription; the process's end ends it. */
async function first(transport: Transport, signal = forever): Promise<readonly Delivery[]> {
  const iterator = transport.subscribe({ topics: ['orders'], group: 'billing' }, signal)[Symbol.asyncIterator]()
  return ((await iterator.next()) as IteratorYieldResult<readonly Delivery[]>).value
}

test('what is held stays invisible to others, however long it takes', async () => {
  const transport = queueTransport(createQueueService(), { visibilityMs: 1000 })
  await transport.publish([message('a')], forever)
  const [held] = await first(transport)
  let overtaken = false
  void first(transport).then((deliveries) => (overtaken = deliveries !== undefined))
  await delay(2200)
  assert.equal(overtaken, false)
  assert.equal(held!.assignment.signal.aborted, false)
  await transport.close()
})

test('what a dead process held comes to others after the timeout, and it gives up what it could not keep', async () => {
  const service = createQueueService()
  let dead = false
  const alive = (): void => assert.ok(!dead, 'no route to host')
  const client: QueueClient = {
    ...service,
    receive: async (...given) => (alive(), service.receive(...given)),
    changeVisibility: async (...given) => (alive(), service.changeVisibility(...given)),
  }
  const failed: string[] = []
  const dying = queueTransport(client, { visibilityMs: 300, observe: ({ type }) => failed.push(type) })
  const other = queueTransport(service, { visibilityMs: 60_000 })
  await dying.publish([message('a')], forever)
  const [held] = await first(dying)
  const lost = once(held!.assignment.signal, 'abort')
  dead = true
  const [again] = await first(other)
  assert.deepEqual([again!.message.key, again!.redelivered], ['a', 'yes'])
  assert.ok(failed.includes('transport.failed'))
  if (!held!.assignment.signal.aborted) await lost
  dead = false
  await held!.ack()
  await again!.ack()
  await Promise.all([dying.close(), other.close()])
})

test('a service that does not answer is asked again, and what was sent to it meanwhile is unknown', async () => {
  const service = createQueueService()
  let failures = 2
  const fail = async (): Promise<never> => Promise.reject(new Error('connection reset'))
  const client: QueueClient = {
    ...service,
    receive: async (...given) => (failures-- > 0 ? fail() : service.receive(...given)),
  }
  const transport = queueTransport(client)
  await transport.publish([message('a')], forever)
  assert.equal((await first(transport)).length, 1)
  const [outcome] = await queueTransport({ ...service, sendBatch: fail }).publish([message('b')], forever)
  assert.equal(outcome!.kind, 'unknown')
  await transport.close()
})

test('refused credentials are said at once, to who publishes and to who subscribes', async () => {
  const denied = async (): Promise<never> => Promise.reject(Object.assign(new Error('no'), { name: 'AccessDenied' }))
  const transport = queueTransport({ ...createQueueService(), sendBatch: denied, receive: denied })
  const [outcome] = await transport.publish([message('a')], forever)
  assert.ok(outcome!.kind === 'rejected' && outcome!.error.code === 'ACCESS_DENIED')
  await assert.rejects(first(transport), { code: 'ACCESS_DENIED' })
  await transport.close()
})

test('two names never become one', () => {
  const names = ['a.b', 'a_b', 'a_db', 'a/b', 'a_sb', 'a__b', 'a_.b', 'a-b']
  assert.equal(new Set(names.map(escapeName)).size, names.length)
})
