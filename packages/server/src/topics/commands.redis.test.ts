import { service } from 'waybill-services'
import { brokerCommands } from '../testing/broker-commands.ts'

brokerCommands({
  type: 'redis',
  server: await service('redis'),
  settings: ({ url }) => ({ REDIS_URL: url }),
  product: /^(Redis|Valkey) \d+\.\d+\S* at /,
})
