import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compose, type Middleware } from './handler.ts'

test('the first layer is the outermost', async () => {
  const log: string[] = []
  const layer =
    (name: string): Middleware =>
    (next) =>
    async (invocation) => {
      log.push(`${name} in`)
      await next(invocation)
      log.push(`${name} out`)
    }
  const handler = compose(async ({ attempt }) => void log.push(`handle ${attempt}`), [layer('a'), layer('b')])
  await handler({ events: [], signal: new AbortController().signal, attempt: 2 })
  assert.deepEqual(log, ['a in', 'b in', 'handle 2', 'b out', 'a out'])
})
