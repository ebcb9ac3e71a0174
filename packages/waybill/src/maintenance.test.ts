import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryStorage } from './adapters/memory/storage.ts'
import { maintain } from './maintenance.ts'
import { createFakeClock } from './testing/fake-clock.ts'

test('a sweep goes on until nothing old is left, however much came in a minute', async () => {
  const clock = createFakeClock()
  const storage = memoryStorage({ clock })
  let left = 12_000
  const inbox: typeof storage.inbox = {
    ...storage.inbox,
    async sweep(_keepMs, limit) {
      const count = Math.min(left, limit)
      left -= count
      return count
    },
  }
  const stop = new AbortController()
  const maintaining = maintain(
    { storage: { ...storage, inbox }, inboxKeepMs: 1, clock, observe: ({ type }) => assert.fail(type) },
    stop.signal,
  )
  await clock.advance(61_000)
  assert.equal(left, 0)
  stop.abort()
  await maintaining
})
