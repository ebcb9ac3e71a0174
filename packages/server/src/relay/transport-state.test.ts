import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Transport, WaybillError, memoryTransport } from 'waybill'
import { createTransportState } from './transport-state.ts'

const LIMIT_MS = 1_000

function watched(examine: (signal: AbortSignal) => Promise<never> | Promise<void>) {
  const state = createTransportState()
  let asked = 0
  const transport = {
    ...memoryTransport(),
    admin: { topics: () => Promise.resolve([]), examine: (signal: AbortSignal) => (asked++, examine(signal)) },
  }
  state.watch(transport as unknown as Transport)
  return { state, asked: () => asked }
}

test('as long as the transport has said nothing the broker is asked, once at a time, and no more once it has answered', async () => {
  const { state, asked } = watched(() => Promise.resolve())
  assert.deepEqual(await Promise.all([state.trouble(LIMIT_MS), state.trouble(LIMIT_MS)]), [undefined, undefined])
  await state.trouble(LIMIT_MS)
  assert.equal(asked(), 1)
})

test('a broker that refuses or hangs is trouble, until it answers or takes something', async () => {
  const refused = watched(() => Promise.reject(new WaybillError('TRANSPORT_UNAVAILABLE', 'nobody there')))
  assert.equal(await refused.state.trouble(LIMIT_MS), 'nobody there')
  refused.state.observe({ type: 'relay.published', count: 1, durationMs: 1 })
  assert.equal(await refused.state.trouble(LIMIT_MS), undefined)
  let cut = false
  const hangs = watched((signal) => new Promise<never>(() => signal.addEventListener('abort', () => (cut = true))))
  assert.equal(await hangs.state.trouble(20), 'the broker did not answer within 20 ms')
  assert.ok(cut)
})

test('what the transport says counts, whatever the broker answers', async () => {
  const { state } = watched(() => Promise.resolve())
  state.observe({ type: 'transport.changed', transport: 'x', to: 'down', error: new Error('reset by peer') })
  assert.equal(await state.trouble(LIMIT_MS), 'reset by peer')
  state.observe({ type: 'transport.changed', transport: 'x', to: 'down' })
  assert.equal(await state.trouble(LIMIT_MS), 'it does not answer')
  state.observe({ type: 'transport.changed', transport: 'x', to: 'up' })
  assert.equal(await state.trouble(LIMIT_MS), undefined)
})

test('a broker that was down is asked again, so that a relay without work hears that it is back', async () => {
  const { state, asked } = watched(async () => state.observe({ type: 'transport.changed', transport: 'x', to: 'up' }))
  state.observe({ type: 'transport.changed', transport: 'x', to: 'down' })
  assert.equal(await state.trouble(LIMIT_MS), undefined)
  assert.equal(await state.trouble(LIMIT_MS), undefined)
  assert.equal(asked(), 1)
})

test('one who may not ask may still publish; one who may not log in is refused', async () => {
  const denied = new WaybillError('ACCESS_DENIED', 'no such user')
  const { state } = watched(() => Promise.reject(denied))
  assert.deepEqual([await state.trouble(LIMIT_MS), state.refusal()], [undefined, undefined])
  state.observe({ type: 'transport.changed', transport: 'x', to: 'down', error: denied })
  assert.deepEqual([await state.trouble(LIMIT_MS), state.refusal()], ['no such user', denied])
  state.observe({ type: 'transport.changed', transport: 'x', to: 'up' })
  assert.equal(state.refusal(), undefined)
})

test('of a transport without a broker there is nothing to say', async () => {
  const state = createTransportState()
  assert.equal(await state.trouble(LIMIT_MS), undefined)
  state.watch(memoryTransport())
  assert.equal(await state.trouble(LIMIT_MS), undefined)
})
