import { ownServerOrSkip } from 'waybill-services'
import { brokerAccess } from '../testing/broker-access.ts'

brokerAccess({
  type: 'kafka',
  server: await ownServerOrSkip('kafka', { auth: true }),
  right: ({ extra }) => ({
    KAFKA_BOOTSTRAP_SERVERS: extra['saslUrl']!,
    KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
    KAFKA_SASL_USERNAME: extra['user']!,
    KAFKA_SASL_PASSWORD: extra['password']!,
  }),
  wrong: ({ extra }, secret) => ({
    KAFKA_BOOTSTRAP_SERVERS: extra['saslUrl']!,
    KAFKA_SASL_MECHANISM: 'PLAIN',
    KAFKA_SASL_USERNAME: extra['user']!,
    KAFKA_SASL_PASSWORD: secret,
  }),
  refusesEarly: true,
})
