import { suite, test } from 'node:test'
import { transportContract } from 'waybill/testing'
import { createQueueService } from './queue-service.ts'
import { queueTransport } from './queue-transport.ts'

suite('a transport of our own', () => {
  const service = createQueueService()
  transportContract(test, async () => queueTransport(service), { messageMaxBytes: 262_144 })
})
