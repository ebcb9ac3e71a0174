import assert from 'node:assert/strict'
import { after, suite, test } from 'node:test'
import type { TransportCheckId } from '../../src/testing/transport-checks.ts'
import { transportContract } from '../../src/testing/transport-contract.ts'
import { type BROKEN, LEFT_BEHIND, connect } from './broken-redis.ts'
import type { OwnBroker } from './fixture.ts'
import { broker } from './redis.ts'

/** Several times what a right one needs. */
const RECOVERY_MS = 20_000
const MODULE = new URL('broken-redis.ts', import.meta.url).href
const NOTICED_BY: Readonly<Record<keyof typeof BROKEN, TransportCheckId>> = {
  'answers before the broker': 'publish-ack-is-broker-ack',
  'acks before it is handled': 'kill9-consumer',
  'keeps the process alive': 'close-bounded-idempotent',
}

let own: Promise<OwnBroker> | undefined
after(async () => {
  for (const timer of LEFT_BEHIND) clearInterval(timer)
  await (await own)?.close()
})

suite('the checks that hurt a broker notice a transport that', () => {
  for (const [fault, check] of Object.entries(NOTICED_BY)) {
    test(fault, async (t) => {
      const shared = await broker.shared()
      if ('skipped' in shared && typeof shared.skipped === 'string') return t.skip(shared.skipped)
      const { target: through, server, proxy } = await (own ??= broker.startOwn())
      const target = { ...through, broken: fault }
      const failed: string[] = []
      const runs: (() => Promise<void>)[] = []
      transportContract(
        (_, run) => runs.push(run),
        () => connect(target),
        {
          report: ({ check: id, result }) => void (result === 'failed' && failed.push(id)),
          broker: async () => ({
            connect: (observe) => connect(target, observe === undefined ? {} : { observe }),
            proxy,
            stop: (mode) => server.stop(mode),
            start: () => server.start(),
            process: { module: MODULE, target },
          }),
          only: [check],
          recoveryMs: RECOVERY_MS,
        },
      )
      assert.ok(runs.length > 0, 'no check was chosen')
      for (const run of runs) await run().catch(() => undefined)
      assert.ok(failed.includes(check), `not noticed by ${check}; failed: ${failed.join(', ') || 'nothing'}`)
    })
  }
})
