import { memoryTransport } from './adapters/memory/transport.ts'
import type { Clock } from './core/clock.ts'
import { type Environment, readSettings } from './core/environment.ts'
import { WaybillError } from './core/errors.ts'
import type { Observe } from './core/observe.ts'
import type { Transport } from './core/transport.ts'

/** The values of `MESSAGE_BUS_TYPE`. `memory` is another name of `inprocess`; `redis` is Redis Streams. */
export const MESSAGE_BUS_TYPES = ['inprocess', 'memory', 'pulsar', 'kafka', 'nats', 'redis'] as const
export type MessageBusType = (typeof MESSAGE_BUS_TYPES)[number]

export interface TransportFromEnvironmentOptions {
  /** Overrides `MESSAGE_BUS_TYPE`. */
  readonly type?: MessageBusType
  readonly observe?: Observe
  readonly clock?: Clock
}

/**
 * The transport that the environment asks for: `MESSAGE_BUS_TYPE` (default `inprocess`), and the settings of that broker (`KAFKA_BOOTSTRAP_SERVERS`,
 * `NATS_URL`, `REDIS_URL`, `PULSAR_URL` and so on, as the page of each broker lists them). Does not connect yet. In process it acknowledges what is handled, so that an
 * outbox loses nothing.
 * @throws WaybillError `INVALID_SETTING` naming the setting; `PEER_MISSING` where the broker's package is not installed
 */
export async function transportFromEnvironment(
  env: Environment = process.env,
  options: TransportFromEnvironmentOptions = {},
): Promise<Transport> {
  const { observe, clock } = options
  const more = { ...(observe === undefined ? {} : { observe }), ...(clock === undefined ? {} : { clock }) }
  const type = options.type ?? messageBusType(env)
  // Each late: who uses one broker loads no other's adapter.
  switch (type) {
    case 'inprocess':
    case 'memory':
      return memoryTransport({ acknowledge: 'handled', ...(clock === undefined ? {} : { clock }) })
    case 'kafka': {
      const { kafkaSettings, kafkaTransport } = await import('./kafka.ts')
      return kafkaTransport({ ...kafkaSettings(env), ...more })
    }
    case 'nats': {
      const { natsSettings, natsTransport } = await import('./nats.ts')
      return natsTransport({ ...natsSettings(env), ...more })
    }
    case 'redis': {
      const { redisSettings, redisTransport } = await import('./redis.ts')
      return redisTransport({ ...redisSettings(env), ...more })
    }
    case 'pulsar': {
      const { pulsarSettings, pulsarTransport } = await import('./pulsar.ts')
      return pulsarTransport({ ...pulsarSettings(env), ...more })
    }
    default:
      throw new WaybillError('INVALID_OPTION', 'the type of the message bus is unknown', {
        got: type satisfies never,
        allowed: MESSAGE_BUS_TYPES.join(', '),
        where: 'type',
      })
  }
}

/** `MESSAGE_BUS_TYPE`, or `inprocess` where it is not set. @throws WaybillError `INVALID_SETTING` with the list of what there is */
export function messageBusType(env: Environment): MessageBusType {
  return readSettings(env).oneOf('MESSAGE_BUS_TYPE', MESSAGE_BUS_TYPES) ?? 'inprocess'
}
