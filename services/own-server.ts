import { prepareKafka } from './kafka.ts'
import type { ServiceName } from './names.ts'
import { prepareNats } from './nats.ts'
import { ownPostgres } from './postgres.ts'
import { preparePulsar } from './pulsar.ts'
import { prepareRedis } from './redis.ts'
import { runServer } from './run-server.ts'
import type { OwnServer, Prepare, ServerOptions } from './server.ts'

const PREPARE: Readonly<Record<Exclude<ServiceName, 'postgres'>, Prepare>> = {
  redis: prepareRedis,
  nats: prepareNats,
  kafka: prepareKafka,
  pulsar: preparePulsar,
}

/**
 * A private server on a free port of 127.0.0.1, in a temporary folder, that a test may hurt. Installed first where it isn't there yet. It ends with this
 * process, whatever that one dies of. Throws an `Error` that names what is missing, or shows the end of the server's log.
 */
export async function ownServer(name: ServiceName, options: ServerOptions = {}): Promise<OwnServer> {
  if (name === 'postgres') return ownPostgres(options)
  return runServer(name, PREPARE[name], options)
}
