import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Observe, observeAll, unobserved, type WaybillEvent } from './observe.ts'

const event: WaybillEvent = { type: 'relay.failed', error: 'x' }

test('all observers hear, in order, also behind one that throws', () => {
  const heard: string[] = []
  const thrower: Observe = () => {
    throw new Error('mine')
  }
  observeAll([(one) => heard.push(`a ${one.type}`), thrower, (one) => heard.push(`b ${one.type}`)])(event)
  assert.deepEqual(heard, ['a relay.failed', 'b relay.failed'])
})

test('nobody needs to listen', () => {
  unobserved(event)
  observeAll([])(event)
})
