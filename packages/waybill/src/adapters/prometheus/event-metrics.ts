import type { Observe } from '../../core/observe.ts'
import { createBoundedLabels } from './bounded-labels.ts'
import { type PromClientLike, type PromRegistryLike, createFactory } from './prom-client.ts'

// Seconds. Publishing is expected within 10, 50 or 200 ms, and the alert on latency stands at 500: all of them are borders.
const PUBLISH_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10]
const HANDLER_BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
/** A breaker's state as a number. */
const BREAKER_STATES = { closed: 0, open: 1, 'half-open': 2 } as const

export interface EventMetricsOptions {
  readonly client: PromClientLike
  readonly register: PromRegistryLike
  /** Different values of a label that is a name. */
  readonly labelValuesMax: number
}

/** Counters and histograms that follow what is observed; each event costs a look-up or two. */
export function createEventMetrics({ client, register, labelValuesMax }: EventMetricsOptions): Observe {
  const { counter, gauge, histogram } = createFactory(client, register)

  const eventType = createBoundedLabels(labelValuesMax)
  const handlerName = createBoundedLabels(labelValuesMax)
  const pathName = createBoundedLabels(labelValuesMax)
  const transportName = createBoundedLabels(labelValuesMax)

  const published = counter('publish_total', 'Publishes that have ended', { labelNames: ['event_type', 'strategy', 'outcome'] })
  const publishSeconds = histogram('publish_duration_seconds', 'From publish to its outcome', {
    buckets: PUBLISH_BUCKETS,
    labelNames: ['strategy'],
  })
  const fallbacks = counter('hybrid_fast_fallbacks_total', 'Events of HYBRID_FAST that the outbox had to take')
  const unitFailures = counter('unit_failures_total', 'Faults after a commit that the unit of work did not hear of')
  const breakerState = gauge('circuit_breaker_state', '0 closed, 1 open, 2 half-open', { labelNames: ['path'] })
  const breakerTrips = counter('circuit_breaker_trips_total', 'How often a breaker opened', { labelNames: ['path'] })
  const relayed = counter('relay_published_total', 'Rows that the transport has stored')
  const relaySeconds = histogram('relay_publish_duration_seconds', 'One call of the transport', { buckets: HANDLER_BUCKETS })
  const held = counter('relay_held_total', 'Failed attempts after which a row and its key wait')
  const parked = counter('relay_parked_total', 'Rows given up until somebody retries or skips them')
  const relayFailures = counter('relay_failures_total', 'Failures of the relay itself: database, leases, upkeep')
  const shards = gauge('relay_shards', 'Shards that the relay of this process holds, of 64')
  const listening = gauge('relay_listening', '1 while hints of the database arrive, 0 while the relay only polls')
  const handlerSeconds = histogram('handler_duration_seconds', 'Runs of a handler that succeeded', {
    buckets: HANDLER_BUCKETS,
    labelNames: ['handler'],
  })
  const handled = counter('handler_events_total', 'Events that a handler has handled', { labelNames: ['handler'] })
  const handlerFailures = counter('handler_failures_total', 'Runs of a handler that failed', { labelNames: ['handler'] })
  const deadLettered = counter('handler_parked_total', 'Messages moved to the dead letters', { labelNames: ['handler', 'reason'] })
  const consumerFailures = counter('consumer_failures_total', 'Failures of a consumer beside its handler', { labelNames: ['handler'] })
  const gaps = counter('transport_gaps_total', 'How often the broker no longer had what a group has not read', {
    labelNames: ['transport'],
  })

  // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- what no metric is about is left to logs
  return (event) => {
    switch (event.type) {
      case 'publish.settled':
        published.inc({ event_type: eventType(event.eventType), strategy: event.strategy, outcome: event.outcome })
        publishSeconds.observe({ strategy: event.strategy }, seconds(event.durationMs))
        return
      case 'publish.fell-back':
        return fallbacks.inc({})
      case 'unit.failed':
        return unitFailures.inc({})
      case 'breaker.changed': {
        const path = pathName(event.path)
        breakerState.set({ path }, BREAKER_STATES[event.to])
        if (event.to === 'open') breakerTrips.inc({ path })
        return
      }
      case 'relay.acquired':
        return shards.set({}, event.shards)
      case 'relay.published':
        relayed.inc({}, event.count)
        relaySeconds.observe({}, seconds(event.durationMs))
        return
      case 'relay.held':
        return held.inc({})
      case 'relay.parked':
        return parked.inc({})
      case 'relay.failed':
        return relayFailures.inc({})
      case 'relay.hints':
        return listening.set({}, event.state === 'listening' ? 1 : 0)
      case 'delivery.handled': {
        const handler = handlerName(event.handler)
        handlerSeconds.observe({ handler }, seconds(event.durationMs))
        handled.inc({ handler }, event.count)
        return
      }
      case 'delivery.failed':
        return handlerFailures.inc({ handler: handlerName(event.handler) })
      case 'delivery.parked':
        return deadLettered.inc({ handler: handlerName(event.handler), reason: event.reason })
      case 'consumer.failed':
        return consumerFailures.inc({ handler: handlerName(event.handler) })
      case 'transport.gap':
        return gaps.inc({ transport: transportName(event.transport) })
      default:
    }
  }
}

// A clock that was set back must not make a histogram refuse.
function seconds(ms: number): number {
  return Math.max(0, ms) / 1000
}
