import { pythonClients } from '../../../../services/clients.ts'
import { natsSubject } from '../../src/nats.ts'
import { interopTests, pythonClient } from './interop/interop.ts'
import { broker } from './nats.ts'

const NAME = 'nats-py'

interopTests(
  broker,
  async () => [
    pythonClient(NAME, 'nats', await pythonClients(), (target, topic, what) => [
      target['url']!,
      // All partitions; and where anybody may publish who knows of none.
      what === 'consume' ? `${natsSubject('waybill', topic)}.>` : natsSubject('waybill', topic),
    ]),
  ],
  [NAME],
)
