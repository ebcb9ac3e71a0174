import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseNames, SERVICE_NAMES } from './names.ts'

test('no name asks for all servers, and a name twice asks once', () => {
  assert.deepEqual(parseNames([]), SERVICE_NAMES)
  assert.deepEqual(parseNames(['nats', 'redis', 'nats']), ['redis', 'nats'])
})

test('an unknown name is refused with what was probably meant and what there is', () => {
  const refusals = [
    ['kafak', /unknown server "kafak": did you mean kafka\? There are: postgres, redis, nats, kafka, pulsar/],
    ['Postgresql', /did you mean postgres\?/],
    ['rabbitmq', /unknown server "rabbitmq" There are/],
    ['', /unknown server ""/],
    ['constructor', /unknown server "constructor" There are/],
    ['x'.repeat(100_000), /There are/],
  ] as const
  for (const [name, said] of refusals) assert.throws(() => parseNames([name]), said)
})

const run = (...args: readonly string[]) =>
  spawnSync(process.execPath, [fileURLToPath(new URL('main.ts', import.meta.url)), ...args], { encoding: 'utf8' })

test('the command ends with 2 for what it does not know, and with 0 for its help', () => {
  for (const [args, said] of [
    [['up', 'kafak'], /did you mean kafka/],
    [['start'], /unknown command "start"[^]*usage:/],
    [['constructor'], /unknown command "constructor"/],
    [[], /a command is missing[^]*usage:/],
  ] as const) {
    const { status, stderr, stdout } = run(...args)
    assert.equal(status, 2)
    assert.match(stderr, said)
    assert.equal(stdout, '')
  }
  assert.equal(run('--help').status, 0)
})
