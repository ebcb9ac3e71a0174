import { type Environment, readSettings } from '../../core/environment.ts'
import { WaybillError } from '../../core/errors.ts'
import { type KafkaTransportOptions, SASL_MECHANISMS } from './options.ts'

/**
 * The options that the `KAFKA_*` settings of an environment ask for.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE`
 */
export function kafkaSettings(env: Environment): KafkaTransportOptions {
  const settings = readSettings(env)
  const bootstrapServers = settings
    .required('KAFKA_BOOTSTRAP_SERVERS', 'host:port, more of them after commas')
    .split(',')
    .map((server) => server.trim())
    .filter((server) => server !== '')
  const clientId = settings.text('KAFKA_CLIENT_ID')
  const partitions = settings.integer('KAFKA_TOPIC_PARTITIONS', 1, 10_000)
  const replicationFactor = settings.integer('KAFKA_REPLICATION_FACTOR', 1, 100)
  const createTopics = settings.flag('KAFKA_CREATE_TOPICS')
  const messageMaxBytes = settings.integer('KAFKA_MESSAGE_MAX_BYTES', 1, 64 * 1024 * 1024)
  const requestTimeoutMs = settings.integer('KAFKA_REQUEST_TIMEOUT_MS', 100, 600_000)
  const closeTimeoutMs = settings.integer('KAFKA_CLOSE_TIMEOUT_MS', 100, 60_000)
  const sessionTimeoutMs = settings.integer('KAFKA_SESSION_TIMEOUT_MS', 1_000, 3_600_000)
  const sasl = saslOf(env)
  const tls = tlsOf(env)
  return {
    bootstrapServers,
    ...(clientId !== undefined && { clientId }),
    ...(partitions !== undefined && { partitions }),
    ...(replicationFactor !== undefined && { replicationFactor }),
    ...(createTopics !== undefined && { createTopics }),
    ...(messageMaxBytes !== undefined && { messageMaxBytes }),
    ...(requestTimeoutMs !== undefined && { requestTimeoutMs }),
    ...(closeTimeoutMs !== undefined && { closeTimeoutMs }),
    ...(sessionTimeoutMs !== undefined && { sessionTimeoutMs }),
    ...(sasl !== undefined && { sasl }),
    ...(tls !== undefined && { tls }),
  }
}

function saslOf(env: Environment): KafkaTransportOptions['sasl'] {
  const settings = readSettings(env)
  const mechanism = settings.oneOf('KAFKA_SASL_MECHANISM', SASL_MECHANISMS)
  if (mechanism !== undefined) {
    return {
      mechanism,
      username: settings.required('KAFKA_SASL_USERNAME', 'the name that KAFKA_SASL_MECHANISM logs in with'),
      password: settings.required('KAFKA_SASL_PASSWORD', 'the password that KAFKA_SASL_MECHANISM logs in with'),
    }
  }
  const lonely = ['KAFKA_SASL_USERNAME', 'KAFKA_SASL_PASSWORD'].find((name) => settings.text(name) !== undefined)
  if (lonely === undefined) return undefined
  throw new WaybillError('INVALID_SETTING', `${lonely} is set, and KAFKA_SASL_MECHANISM is not`, { allowed: SASL_MECHANISMS.join(', ') })
}

function tlsOf(env: Environment): KafkaTransportOptions['tls'] {
  const settings = readSettings(env)
  const ca = settings.file('KAFKA_TLS_CA_PATH')
  const cert = settings.file('KAFKA_TLS_CERT_PATH')
  const key = settings.file('KAFKA_TLS_KEY_PATH')
  const validateHostname = settings.flag('KAFKA_TLS_VALIDATE_HOSTNAME')
  const isEnabled = settings.flag('KAFKA_TLS_ENABLED') ?? (ca !== undefined || cert !== undefined || key !== undefined)
  if (!isEnabled) return undefined
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(validateHostname !== undefined && { validateHostname }),
  }
}
