import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { main } from '../main.ts'
import { startCommand } from '../testing/command-process.ts'
import { readEnvFile } from './env-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-env-'))
after(() => rmSync(folder, { recursive: true }))

function file(content: string | Uint8Array): string {
  const path = join(folder, 'settings.env')
  writeFileSync(path, content)
  return path
}

test('a file is read as Node reads it: comments, quotes over several lines, export', () => {
  const text = [
    '# broker',
    'MESSAGE_BUS_TYPE=redis # streams',
    '',
    "REDIS_URL='redis://h:6379'",
    'export NATS_URL=nats://h:4222',
    'PEM="first',
    'no setting, but a line of it',
    'last"',
    'EMPTY=',
    "NAME=it's",
  ].join('\r\n')
  const { PEM, ...others } = readEnvFile(file(`\uFEFF${text}`))
  assert.deepEqual(others, { MESSAGE_BUS_TYPE: 'redis', REDIS_URL: 'redis://h:6379', NATS_URL: 'nats://h:4222', EMPTY: '', NAME: "it's" })
  assert.match(PEM!, /^first\r?\nno setting, but a line of it\r?\nlast$/)
})

test('a bad file is one error that names the line, never a value', () => {
  const cases: readonly (readonly [string | Uint8Array, RegExp])[] = [
    ['A=1\nhunter2\n', /line 2 has no "="/],
    ['A=1\n\n= hunter2', /line 3 does not begin with a name/],
    ['A="x\ny"\nB="hunter2', /line 3 opens a quote that is never closed/],
    ['two words=hunter2', /line 1 does not begin with a name/],
    [Uint8Array.of(0x41, 0x3d, 0xff), /is no text/],
    ['A=1\0', /is no text/],
    ['#'.repeat(1024 * 1024 + 1), /is larger than/],
  ]
  for (const [content, message] of cases) {
    assert.throws(
      () => readEnvFile(file(content)),
      (error: Error & { code?: string }) =>
        error.code === 'INVALID_FILE' && message.test(error.message) && !error.message.includes('hunter2'),
      String(message),
    )
  }
})

test('.env of the current folder is read, the environment wins, and a bad one is exit code 2', async () => {
  const cwd = join(folder, 'project')
  mkdirSync(cwd)
  const run = (args: readonly string[], env: Record<string, string> = {}) => startCommand(args, { cwd, env }).ended
  writeFileSync(join(cwd, '.env'), 'MESSAGE_BUS_TYPE=kafkka\n')
  assert.match((await run(['topics'])).stderr, /MESSAGE_BUS_TYPE is unknown; did you mean "kafka"/)
  assert.match((await run(['topics'], { MESSAGE_BUS_TYPE: 'inprocess' })).stderr, /MESSAGE_BUS_TYPE is inprocess/)
  assert.match((await run(['topics'], { MESSAGE_BUS_TYPE: '' })).stderr, /MESSAGE_BUS_TYPE is inprocess/)
  assert.match((await run(['topics', '--env-file', file('MESSAGE_BUS_TYPE=nots')])).stderr, /got "nots"/)
  writeFileSync(join(cwd, '.env'), 'MESSAGE_BUS_TYPE\n')
  const { code, stdout, stderr } = await run(['topics'])
  assert.deepEqual([code, stdout], [2, ''])
  assert.match(
    stderr,
    /^waybill: \.env can't be used: line 1 has no "=" \(got "[^"]*"; allowed: a text file of lines NAME=value\) \[INVALID_FILE\]\n$/,
  )
  assert.equal((await run(['--help'])).code, 0, 'help is for those whose settings are wrong, too')
})

test('what a module reads from process.env is there, and a password of the file is never shown', async () => {
  const path = join(folder, 'transport.mjs')
  writeFileSync(
    path,
    'export const createTransport = () => { throw new Error(`no way into ${process.env.REDIS_URL} with ${process.env.NATS_TOKEN}`) }',
  )
  const settings = file('REDIS_URL=redis://u:hunter2@h:6379\nNATS_TOKEN=s3cret-token\nKAFKA_SASL_PASSWORD=hunter3')
  const { code, stderr } = await startCommand(['topics', '--transport', path, '--env-file', settings]).ended
  assert.equal(code, 2)
  assert.match(stderr, /no way into redis:\/\/u:\*\*\*@h:6379 with \*\*\*/)
})

test('the environment that was handed in is left alone', async () => {
  const env = {}
  const stream = { write: () => true }
  assert.equal(await main(['topics', '--env-file', file('MESSAGE_BUS_TYPE=memory')], { stdout: stream, stderr: stream, env }), 2)
  assert.deepEqual(env, {})
})
