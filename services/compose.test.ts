import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'

// What is asked of Docker, by a program of its name that writes down how it is called: an engine is not everywhere where these tests run.

const WAIT_LIMIT_MS = 10_000

function stubDocker(t: TestContext, script: string): { readonly env: NodeJS.ProcessEnv; calls(): Promise<readonly string[]> } {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-docker-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const log = join(folder, 'calls')
  writeFileSync(join(folder, 'docker'), `#!/bin/sh\necho "$* $WAYBILL_REDIS_PORT" >> ${log}\n${script}\n`)
  chmodSync(join(folder, 'docker'), 0o755)
  const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${folder}${delimiter}${process.env['PATH']}` }
  for (const name of ['WAYBILL_SERVICES', 'WAYBILL_REQUIRE_SERVERS', 'REDIS_URL']) delete env[name]
  return { env, calls: async () => (await readFile(log, 'utf8')).trim().split('\n') }
}

const ASK = `
  import { service } from ${JSON.stringify(new URL('index.ts', import.meta.url).href)}
  process.send(await service('redis'))
  setInterval(() => {}, 1_000)`

async function askInProcess(env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', ASK], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env })
  const [answer] = (await once(child, 'message')) as [Readonly<Record<string, unknown>>]
  return { answer, child }
}

test('where an engine answers, one container is started on a free port, and removed with its data once the process is killed', async (t) => {
  const { env, calls } = stubDocker(t, 'exit 0')
  const { answer, child } = await askInProcess(env)
  assert.equal(answer['provider'], 'compose')
  assert.match(String(answer['url']), /^redis:\/\/127\.0\.0\.1:\d+$/)
  const up = (await calls()).find((call) => call.includes(' up '))
  const parts = /^compose -p (waybill-redis-[0-9a-f]{8}) -f (\S+compose\.yaml) up --detach --wait redis (\d+)$/.exec(up ?? '')
  assert.ok(parts, up)
  assert.equal(Number(parts[3]), answer['port'])
  child.kill('SIGKILL')
  await once(child, 'exit')
  const down = `compose -p ${parts[1]} -f ${parts[2]} down --volumes --timeout 5`
  const deadline = Date.now() + WAIT_LIMIT_MS
  while (!(await calls()).some((call) => call.startsWith(down))) {
    assert.ok(Date.now() < deadline, (await calls()).join('\n'))
    await pause(50)
  }
})

test('a container that does not come up is a reason to skip, and is removed', async (t) => {
  const { env, calls } = stubDocker(t, 'case "$*" in *" up "*) echo "no such image" >&2; exit 1;; esac')
  const { answer, child } = await askInProcess(env)
  child.kill('SIGKILL')
  assert.match(String(answer['skipped']), /docker compose -p \S+ failed with code 1:[^]*no such image/)
  assert.ok((await calls()).some((call) => call.includes(' down --volumes ')))
})

test('where no engine answers, the package managers are asked', async (t) => {
  const { env, calls } = stubDocker(t, 'case "$1" in info) echo "cannot connect to the daemon" >&2; exit 1;; esac')
  const { answer, child } = await askInProcess(env)
  child.kill('SIGKILL')
  assert.notEqual(answer['provider'], 'compose')
  assert.ok(!(await calls()).some((call) => call.includes(' up ')))
})
