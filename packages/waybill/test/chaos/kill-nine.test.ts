import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chaosTest } from './chaos-test.ts'
import { RELAY_CRASHPOINTS, killAt } from './faults.ts'

// kill -9 at every line of the relay where it would hurt: each must have fired.

const POINTS_PER_RUN = 3

test('there are points to be killed at', () => assert.ok(RELAY_CRASHPOINTS.length >= 9, RELAY_CRASHPOINTS.join(', ')))

for (let first = 0; first < RELAY_CRASHPOINTS.length; first += POINTS_PER_RUN) {
  const points = RELAY_CRASHPOINTS.slice(first, first + POINTS_PER_RUN)
  chaosTest(`relays killed at ${points.join(', ')} cost repeats, never an event, the order or a second effect`, killAt(...points), {
    seed: 100 + first,
  })
}
