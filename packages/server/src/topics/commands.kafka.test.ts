import { service } from 'waybill-services'
import { brokerCommands } from '../testing/broker-commands.ts'

brokerCommands({
  type: 'kafka',
  server: await service('kafka'),
  settings: ({ url }) => ({ KAFKA_BOOTSTRAP_SERVERS: url }),
  product: /^Kafka \d+\.\d+.* at /,
})
