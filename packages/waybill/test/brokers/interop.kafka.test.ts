import { kcat, pythonClients } from '../../../../services/clients.ts'
import { kafkaTopicName } from '../../src/kafka.ts'
import { type ForeignClient, interopTests, pythonClient, runClient } from './interop/interop.ts'
import { broker } from './kafka.ts'

const NAMES = ['confluent-kafka (Python)', 'kcat'] as const
/** kcat prints what it is told to: one message as key, headers and body, with a byte between that none of them has. */
const FORMAT = '%k\\x1f%h\\x1f%s'
const CONSUME_MS = '30000'

async function kcatClient(): Promise<ForeignClient> {
  const program = await kcat()
  return {
    name: 'kcat',
    async consume(target, topic) {
      const options = ['-b', target['bootstrapServers']!, '-t', kafkaTopicName(topic), '-X', `session.timeout.ms=${CONSUME_MS}`]
      const printed = await runClient(program, ['-C', '-o', 'beginning', '-c', '1', '-q', '-f', FORMAT, ...options])
      const [key = '', headers = '', body = ''] = printed.split('\u001f')
      return { key, headers: Object.fromEntries(headers.split(',').map((pair) => pair.split('=') as [string, string])), body }
    },
    async publish(target, topic, key, body) {
      await runClient(
        program,
        ['-P', '-b', target['bootstrapServers']!, '-t', kafkaTopicName(topic), '-K', '\u001f'],
        `${key}\u001f${body}\n`,
      )
    },
  }
}

interopTests(
  broker,
  async () => [
    pythonClient(NAMES[0], 'kafka', await pythonClients(), (target, topic) => [target['bootstrapServers']!, kafkaTopicName(topic)]),
    await kcatClient(),
  ],
  NAMES,
)
