import type { Command } from '../cli/command.ts'
import { RELAY_FLAGS, relaySettings } from './settings.ts'

/** `waybill relay`: carries rows from the outbox to a transport, until it is stopped. */
export const relayCommand: Command = {
  name: 'relay',
  summary: 'publish what stands in the outbox, until stopped',
  description: [
    'Publishes the rows of the outbox in the order of each key, to the broker that MESSAGE_BUS_TYPE or --broker names,',
    'until SIGINT or SIGTERM; then finishes what is in flight and gives its shards back. A second signal ends it at',
    'once. Any number of relays may share a database: they share the shards too. Logs are JSON lines on stderr, by',
    'LOG_LEVEL. Instead of a broker, FILE is a module that exports',
    '  createTransport(): Transport | Promise<Transport>             one that stores what it acknowledges',
    '  createApp({ observe }): Waybill | Promise<Waybill>            an application with its own relay, not started',
    'HTTP: GET /metrics (Prometheus), GET /health (200 or 503), GET /ready (200 or 503).',
  ],
  flags: RELAY_FLAGS,
  stoppable: true,
  async run(input) {
    const settings = relaySettings(input)
    // Late: a web server and its kin are of no use to the other commands, and take time to load.
    const { runRelay } = await import('./run.ts')
    return runRelay(input, settings)
  },
}
