import { after, suite, test } from 'node:test'
import { memoryTransport } from '../../src/adapters/memory/transport.ts'
import type { TransportCheckResult } from '../../src/testing/transport-checks.ts'
import { transportContract } from '../../src/testing/transport-contract.ts'
import { writeFindings } from './findings.ts'

const MESSAGE_MAX_BYTES = 4096

suite('memory, the transport contract', () => {
  const results: TransportCheckResult[] = []
  after(() => writeFindings({ name: 'memory', versions: ['Waybill 0.1.0'], results }))
  transportContract(test, async () => memoryTransport({ messageMaxBytes: MESSAGE_MAX_BYTES }), {
    messageMaxBytes: MESSAGE_MAX_BYTES,
    report: (result) => results.push(result),
  })
})
