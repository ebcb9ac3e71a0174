import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { pgliteStorage } from '../../src/adapters/postgres/pglite.ts'
import { defineContext, on } from '../../src/context.ts'
import { defineEvent } from '../../src/core/event.ts'
import { newId } from '../../src/core/ids.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { createWaybill } from '../../src/waybill.ts'
import type { BrokerFixture } from './fixture.ts'

const GARBAGE = Uint8Array.of(0xff, 0xfe, 0x00, 0x7b, 0x80)
const never = new AbortController().signal

/** The whole road over a real broker: unit of work, outbox, relay, broker, consumer, inbox. */
export function roadTests(broker: BrokerFixture): void {
  suite(`${broker.name}, the whole road`, () => {
    test('events of one key reach their handler in order and once; what is no envelope is dead-lettered with its bytes, and the group goes on', async (t) => {
      const target = await broker.shared()
      if ('skipped' in target && typeof target.skipped === 'string') return t.skip(target.skipped)
      const topic = `road.t${newId().slice(-12)}`
      const Counted = defineEvent<{ readonly counter: string; readonly value: number }, 'road.Counted'>('road.Counted', {
        aggregate: { type: 'counter', id: ({ counter }) => counter },
        topic,
      })
      const seen: string[] = []
      const counting = defineContext('counting', { events: [Counted], publish: 'INTER_BC_RELIABLE' })
      const context = `watching-${topic.slice(-12)}`
      const watching = defineContext(context, {
        handlers: {
          watch: on([Counted], async ({ payload }) => void seen.push(`${payload.counter}${payload.value}`), { retry: { attemptsMax: 1 } }),
        },
      })
      const storage = await pgliteStorage('memory://')
      const transport = await broker.connect(target)
      await using waybill = await createWaybill({ database: storage, transport, contexts: [counting, watching], source: 'road' })
      await waybill.start()
      const count = (value: number): Promise<unknown> =>
        waybill.unitOfWork(async (unit) => {
          await unit.publish(Counted({ counter: 'a', value }))
          await unit.publish(Counted({ counter: 'b', value }))
        })
      for (let value = 0; value < 10; value++) await count(value)
      await waybill.drained()
      const outcomes = await transport.publish([{ id: newId(), topic, key: 'foreign', headers: {}, body: GARBAGE }], never)
      assert.deepEqual(outcomes, [{ kind: 'stored' }])
      await count(10)
      await waybill.drained()
      const letter = await until('the foreign message is dead-lettered', async () => (await storage.deadLetters.list({ limit: 1 }))[0])
      assert.equal(letter.reason, 'undecodable')
      assert.equal(letter.handler, `${context}/watch`)
      assert.deepEqual(Buffer.from(letter.message.body), Buffer.from(GARBAGE))
      await until('all events are handled', async () => seen.length >= 22)
      for (const counter of ['a', 'b'])
        assert.deepEqual(
          seen.filter((each) => each.startsWith(counter)),
          Array.from({ length: 11 }, (_, value) => `${counter}${value}`),
        )
    })
  })
}
