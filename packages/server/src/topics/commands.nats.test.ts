import { service } from 'waybill-services'
import { brokerCommands } from '../testing/broker-commands.ts'

brokerCommands({
  type: 'nats',
  server: await service('nats'),
  settings: ({ url }) => ({ NATS_URL: url }),
  product: /^NATS.* \d+\.\d+\.\d+\S* at /,
})
