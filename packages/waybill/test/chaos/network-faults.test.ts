import { chaosTest } from './chaos-test.ts'
import { blackHole, cutConnections, halfClose, latency } from './faults.ts'

// What can happen between relays and database. Nothing of it costs an event, the order, or a second effect.

chaosTest('connections between relays and database are cut', cutConnections(), { seed: 204 })
chaosTest('relays and database do not hear each other for longer than a lease', blackHole, { seed: 205, append: 'before' })
chaosTest('answers of the database take longer than a lease', latency, { seed: 206 })
chaosTest('sessions end without the relay being told', halfClose, { seed: 207, append: 'before' })
