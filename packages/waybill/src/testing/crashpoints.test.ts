import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { afterEach, test } from 'node:test'
import { CRASHPOINTS, crashpoint, type Crashpoint } from '../core/crashpoint.ts'
import { isWaybillError } from '../core/errors.ts'
import { armCrashpoint, armCrashpointFromEnvironment, countCrashpoints, disarmCrashpoints } from './crashpoints.ts'

afterEach(disarmCrashpoints)

test('an armed point strikes once, at its hit, and only there', () => {
  let strikes = 0
  armCrashpoint('relay.afterPublish', { hit: 3, action: () => strikes++ })
  const after: number[] = []
  for (let pass = 1; pass <= 5; pass++) {
    crashpoint('relay.afterClaim')
    crashpoint('relay.afterPublish')
    after.push(strikes)
  }
  assert.deepEqual(after, [0, 0, 1, 1, 1])
})

test('what the action throws comes out at the point; disarmed points do nothing', () => {
  armCrashpoint('unit.beforeCommit', {
    action: () => {
      throw new Error('struck')
    },
  })
  const disarm = armCrashpoint('unit.afterCommit', {
    action: () => {
      throw new Error('never')
    },
  })
  disarm()
  crashpoint('unit.afterCommit')
  assert.throws(() => crashpoint('unit.beforeCommit'), /struck/)
  crashpoint('unit.beforeCommit')
})

test('a setting arms several points, and a wrong one arms none', () => {
  const struck: string[] = []
  armCrashpointFromEnvironment('relay.afterPublish:2, consume.beforeAck', { action: () => struck.push('x') })
  crashpoint('consume.beforeAck')
  crashpoint('relay.afterPublish')
  assert.equal(struck.length, 1)
  crashpoint('relay.afterPublish')
  assert.equal(struck.length, 2)
  for (const value of [
    'relay.nowhere',
    'unit.afterCommit,relay.nowhere',
    'relay.afterPublish:0',
    'relay.afterPublish:x',
    'relay.afterPublish:-1',
    'relay.afterPublish:1:2',
    ':3',
    'relay.afterPublish:9999999999',
  ]) {
    assert.throws(
      () => armCrashpointFromEnvironment(value, { action: () => struck.push(value) }),
      (error) => isWaybillError(error, 'INVALID_SETTING') && CRASHPOINTS.every((name) => error.message.includes(name)),
      value,
    )
  }
  crashpoint('unit.afterCommit')
  armCrashpointFromEnvironment(undefined)
  armCrashpointFromEnvironment('')
  assert.equal(struck.length, 2)
})

test('unknown names and hits out of range are errors that list what there is', () => {
  assert.throws(
    () => armCrashpoint('relay.nowhere' as Crashpoint),
    (error) => isWaybillError(error, 'INVALID_OPTION') && error.message.includes('relay.afterPublish'),
  )
  assert.throws(
    () => armCrashpoint('relay.afterMark', { hit: 0 }),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
  assert.throws(
    () => armCrashpoint('relay.afterMark', { action: 'kill' as never }),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})

test('counting tells how often each point was passed', () => {
  const counting = countCrashpoints()
  crashpoint('inbox.beforeCommit')
  crashpoint('inbox.beforeCommit')
  crashpoint('inbox.afterCommit')
  counting.stop()
  crashpoint('inbox.afterCommit')
  assert.deepEqual(counting.counts(), { 'inbox.beforeCommit': 2, 'inbox.afterCommit': 1 })
})

test('by default the process is killed on the spot', () => {
  const here = new URL('.', import.meta.url)
  const code = `
    import { crashpoint } from ${JSON.stringify(new URL('../core/crashpoint.ts', here).href)}
    import { armCrashpointFromEnvironment } from ${JSON.stringify(new URL('crashpoints.ts', here).href)}
    process.on('exit', () => console.log('cleaned up'))
    armCrashpointFromEnvironment('relay.afterPublish:2')
    crashpoint('relay.afterPublish')
    console.log('first')
    crashpoint('relay.afterPublish')
    console.log('survived')`
  const { signal, stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], { encoding: 'utf8' })
  assert.equal(signal, 'SIGKILL')
  assert.equal(stdout, 'first\n')
})
