import { chaosTest } from './chaos-test.ts'
import { databaseRestart, frozenRelay, terminateBackends } from './faults.ts'

// What can happen to a relay and to the database. Nothing of it costs an event, the order, or a second effect.

chaosTest('a relay that is frozen beyond its lease and wakes up does no harm', frozenRelay(), { seed: 201 })
chaosTest('the database is restarted, in good order and by a crash', databaseRestart, { seed: 202, append: 'before' })
chaosTest('sessions are terminated every 60 ms', terminateBackends(), { seed: 203 })
