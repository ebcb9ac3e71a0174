import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { installOnce } from './cache.ts'
import { MissingToolError, runCommand } from './command.ts'

let folder = ''
const before = process.env['WAYBILL_SERVERS_FOLDER']

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'waybill-cache-'))
  process.env['WAYBILL_SERVERS_FOLDER'] = folder
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
  if (before === undefined) delete process.env['WAYBILL_SERVERS_FOLDER']
  else process.env['WAYBILL_SERVERS_FOLDER'] = before
})

test('of many that ask at once one installs, and nothing but the result is left', async () => {
  let installs = 0
  const install = async (work: string) => {
    installs++
    await writeFile(join(work, 'program'), 'x')
  }
  const found = await Promise.all(Array.from({ length: 10 }, () => installOnce('thing-1', install)))
  assert.equal(installs, 1)
  assert.deepEqual(new Set(found), new Set([join(folder, 'thing-1')]))
  assert.equal(await readFile(join(folder, 'thing-1', 'program'), 'utf8'), 'x')
  assert.deepEqual(await readdir(folder), ['thing-1'])
})

test('a failed installation leaves nothing, and the next one is tried', async () => {
  await assert.rejects(
    installOnce('thing-1', async (work) => {
      await writeFile(join(work, 'half'), 'x')
      throw new Error('no network')
    }),
    /no network/,
  )
  assert.deepEqual(await readdir(folder), [])
  await installOnce('thing-1', (work) => writeFile(join(work, 'program'), 'x'))
  assert.deepEqual(await readdir(join(folder, 'thing-1')), ['program'])
})

test('the lock of a process that is gone is taken over', async () => {
  const lock = join(folder, 'thing-1.lock')
  await writeFile(lock, '1')
  const longAgo = new Date(Date.now() - 60_000)
  await utimes(lock, longAgo, longAgo)
  await installOnce('thing-1', (work) => writeFile(join(work, 'program'), 'x'))
  assert.deepEqual(await readdir(folder), ['thing-1'])
})

test('two that both believe to hold the lock agree on one result', async () => {
  const first = installOnce('thing-1', async (work) => {
    // Somebody takes this process for dead.
    await rm(join(folder, 'thing-1.lock'))
    await installOnce('thing-1', (other) => writeFile(join(other, 'program'), 'second'))
    await writeFile(join(work, 'program'), 'first')
  })
  assert.equal(await first, join(folder, 'thing-1'))
  assert.equal(await readFile(join(folder, 'thing-1', 'program'), 'utf8'), 'second')
  assert.deepEqual(await readdir(folder), ['thing-1'])
})

test('a missing tool is named with what gives it, and a command that fails or hangs is told with its output', async () => {
  await assert.rejects(runCommand('java', ['--version'], { env: { PATH: '' } }), (error) => {
    assert.ok(error instanceof MissingToolError)
    assert.match(error.message, /java is not installed: install a JDK 17 or newer/)
    return true
  })
  await assert.rejects(runCommand('sh', ['-c', 'echo what; exit 3']), /sh -c echo what; exit 3 failed with code 3:\nwhat/)
  await assert.rejects(runCommand('sh', ['-c', 'exec sleep 60'], { limitMs: 100 }), /took longer than 0\.1 s/)
})
