import { service } from 'waybill-services'
import { brokerCommands } from '../testing/broker-commands.ts'

brokerCommands({
  type: 'pulsar',
  server: await service('pulsar'),
  settings: ({ url, extra }) => ({ PULSAR_URL: url, PULSAR_WEB_SOCKET_URL: extra['webSocketUrl']!, PULSAR_ADMIN_URL: extra['adminUrl']! }),
  product: /^(Apache )?Pulsar \d+\.\d+\S* at /,
})
