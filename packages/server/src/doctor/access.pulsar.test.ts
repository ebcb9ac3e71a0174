import { ownServerOrSkip } from 'waybill-services'
import { brokerAccess } from '../testing/broker-access.ts'

brokerAccess({
  type: 'pulsar',
  server: await ownServerOrSkip('pulsar', { auth: true }),
  right: ({ url, extra }) => ({
    PULSAR_URL: url,
    PULSAR_WEB_SOCKET_URL: extra['webSocketUrl']!,
    PULSAR_ADMIN_URL: extra['adminUrl']!,
    PULSAR_AUTH_TOKEN: extra['token']!,
  }),
  wrong: ({ url, extra }, secret) => ({
    PULSAR_URL: url,
    PULSAR_WEB_SOCKET_URL: extra['webSocketUrl']!,
    PULSAR_ADMIN_URL: extra['adminUrl']!,
    PULSAR_AUTH_TOKEN: secret,
  }),
})
