import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from './clock.ts'

test('sleep ends after its time, or at once when told to stop; it never rejects', async () => {
  const before = systemClock.now()
  await systemClock.sleep(2)
  assert.ok(systemClock.now() >= before)
  const abort = new AbortController()
  const sleeping = systemClock.sleep(86_400_000, abort.signal)
  abort.abort(new Error('stop'))
  await sleeping
  await systemClock.sleep(86_400_000, abort.signal)
})
