import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { cacheFolder } from './cache.ts'
import { ownServerOrSkip } from './index.ts'
import { redisCommand } from './redis.ts'
import type { Running } from './running.ts'

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))

test('up starts a server again that has died, and prints nothing but the variables to export', async (t) => {
  const there = await ownServerOrSkip('redis')
  if ('skipped' in there) return t.skip(there.skipped)
  await there.close()
  // What is installed, but a list of running servers of its own: somebody may be at work with theirs.
  const folder = mkdtempSync(join(tmpdir(), 'waybill-up-'))
  mkdirSync(cacheFolder(), { recursive: true })
  for (const name of readdirSync(cacheFolder()))
    if (name !== 'running' && !name.endsWith('.lock')) symlinkSync(join(cacheFolder(), name), join(folder, name))
  const env = { ...process.env, WAYBILL_SERVERS_FOLDER: folder }
  for (const name of ['REDIS_URL', 'WAYBILL_SERVICES']) delete (env as Record<string, string | undefined>)[name]
  const run = (...args: readonly string[]) => spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env })
  const state = (): Running => JSON.parse(readFileSync(join(folder, 'running', 'redis.json'), 'utf8')) as Running
  t.after(() => {
    run('down', 'redis')
    rmSync(folder, { recursive: true, force: true })
  })

  const first = run('up', 'redis')
  assert.equal(first.status, 0, first.stderr)
  const begun = state()
  assert.equal(first.stdout, `export REDIS_URL='${begun.url}'\n`)
  assert.match(first.stderr, /^redis +\S+ .* up$/m)
  const again = run('up', 'redis')
  assert.deepEqual([again.stdout, state()], [first.stdout, begun], 'what runs is left alone')
  if (begun.provider !== 'installed') return

  process.kill(begun.pid, 'SIGKILL')
  const lost = run('status', 'redis')
  assert.deepEqual([lost.status, /no answer$/m.test(lost.stdout)], [1, true], lost.stdout)
  const restarted = run('up', 'redis')
  assert.equal(restarted.status, 0, restarted.stderr)
  const { pid, port, url } = state() as Extract<Running, { readonly pid: number }>
  assert.notEqual(pid, begun.pid)
  assert.equal(restarted.stdout, `export REDIS_URL='${url}'\n`)
  assert.equal(await redisCommand('127.0.0.1', port, 'PING'), '+PONG\r\n')
  assert.equal(run('down', 'redis').status, 0)
  assert.equal(existsSync(join(folder, 'running', 'redis.json')), false)
})
