import { ownServerOrSkip } from 'waybill-services'
import { brokerAccess } from '../testing/broker-access.ts'

brokerAccess({
  type: 'nats',
  server: await ownServerOrSkip('nats', { auth: true }),
  right: ({ url, extra }) => ({ NATS_URL: url, NATS_USER: extra['user']!, NATS_PASSWORD: extra['password']! }),
  wrong: ({ url, extra }, secret) => ({ NATS_URL: url, NATS_USER: extra['user']!, NATS_PASSWORD: secret }),
  refusesEarly: true,
})
