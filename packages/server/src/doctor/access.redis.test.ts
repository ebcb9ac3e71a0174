import { ownServerOrSkip } from 'waybill-services'
import { brokerAccess } from '../testing/broker-access.ts'

brokerAccess({
  type: 'redis',
  server: await ownServerOrSkip('redis', { auth: true }),
  right: ({ url }) => ({ REDIS_URL: url }),
  wrong: ({ url }, secret) => ({ REDIS_URL: Object.assign(new URL(url), { password: secret }).href }),
  refusesEarly: true,
})
