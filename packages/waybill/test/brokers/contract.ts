import { after, before, suite, test } from 'node:test'
import type { TransportCheckResult } from '../../src/testing/transport-checks.ts'
import { transportContract } from '../../src/testing/transport-contract.ts'
import { writeFindings } from './findings.ts'
import type { BrokerFixture, OwnBroker, Target } from './fixture.ts'

/** A group may need a session timeout of its broker until it goes on. */
const DEADLINE_MS = 40_000

/** The whole contract on a real broker: on the one that all tests share, and on one of its own where the broker suffers. `module`: the fixture's. */
export function brokerContract(broker: BrokerFixture, module: string): void {
  const results: TransportCheckResult[] = []
  let target: Target = {}
  let skipped: string | undefined
  let own: Promise<OwnBroker> | undefined

  suite(`${broker.name}, the transport contract`, () => {
    before(async () => {
      const shared = await broker.shared()
      if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
      else target = shared
    })
    after(async () => {
      await (await own)?.close()
      if (skipped === undefined) writeFindings({ name: broker.name, versions: broker.versions, results })
    })

    transportContract(
      (name, run) =>
        test(name, async (t) => {
          if (skipped !== undefined) return t.skip(skipped)
          await run()
          const found = results.findLast((result) => result.test === name)
          if (found !== undefined && found.result === 'passed' && found.detail !== '') t.diagnostic(`${found.check}: ${found.detail}`)
        }),
      () => broker.connect(target),
      {
        deadlineMs: DEADLINE_MS,
        quietMs: 300,
        messageMaxBytes: broker.messageMaxBytes,
        report: (result) => results.push(result),
        async broker() {
          const { target: through, server, proxy } = await (own ??= broker.startOwn())
          return {
            connect: (observe) => broker.connect(through, observe === undefined ? {} : { observe }),
            proxy,
            stop: (mode) => server.stop(mode),
            start: () => server.start(),
            process: { module, target: through },
          }
        },
      },
    )
  })
}
