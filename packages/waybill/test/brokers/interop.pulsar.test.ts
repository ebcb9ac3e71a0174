import { pythonClients } from '../../../../services/clients.ts'
import { pulsarTopicName } from '../../src/pulsar.ts'
import { interopTests, pythonClient } from './interop/interop.ts'
import { broker } from './pulsar.ts'

const NAME = 'pulsar-client (Python)'
const HOME = { persistence: 'persistent', tenant: 'public', namespace: 'default' } as const

interopTests(
  broker,
  async () => [pythonClient(NAME, 'pulsar', await pythonClients(), (target, topic) => [target['url']!, pulsarTopicName(topic, HOME)])],
  [NAME],
)
