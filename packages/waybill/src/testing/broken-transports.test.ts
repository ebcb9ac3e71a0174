import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { memoryTransport } from '../adapters/memory/transport.ts'
import type { Transport } from '../core/transport.ts'
import { BROKEN_TRANSPORTS } from './broken-transports.ts'
import { transportContract } from './transport-contract.ts'

/** Runs the contract and gives back the names of the checks that failed. */
async function failing(make: () => Transport, only: readonly string[] = ['']): Promise<string[]> {
  const checks: { readonly name: string; readonly run: () => Promise<void> }[] = []
  transportContract(
    (name, run) => checks.push({ name, run }),
    async () => make(),
    { deadlineMs: 300, quietMs: 20 },
  )
  const chosen = checks.filter(({ name }) => only.some((part) => name.includes(part)))
  assert.ok(chosen.length > 0, 'no check was chosen')
  const failed: string[] = []
  for (const { name, run } of chosen) await run().catch(() => failed.push(name))
  return failed
}

suite('the transport contract notices a transport that', () => {
  for (const [fault, { make, noticedBy }] of Object.entries(BROKEN_TRANSPORTS)) {
    test(fault, async () => {
      const failed = await failing(make, noticedBy)
      for (const part of noticedBy)
        assert.ok(
          failed.some((name) => name.includes(part)),
          `not noticed by "${part}"; failed: ${failed.join(' | ') || 'nothing'}`,
        )
    })
  }
})

test('the same checks pass on a transport that is right', async () => {
  const parts = Object.values(BROKEN_TRANSPORTS).flatMap(({ noticedBy }) => noticedBy)
  transportContract(
    () => undefined,
    async () => memoryTransport(),
  )
  const checks: Promise<void>[] = []
  transportContract(
    (name, run) => {
      if (parts.some((part) => name.includes(part))) checks.push(run())
    },
    async () => memoryTransport({ acknowledge: 'handled' }),
  )
  await Promise.all(checks)
  assert.ok(checks.length >= 8)
})
