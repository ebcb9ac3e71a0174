import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isWaybillError } from 'waybill'
import { loadApp, loadTransport } from './load-module.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-load-'))
after(() => rmSync(folder, { recursive: true }))

function moduleOf(name: string, source: string): string {
  const file = join(folder, `${name}.mjs`)
  writeFileSync(file, source)
  return file
}

test('a createTransport() or createApp() that throws is named, with what it threw as the cause', async () => {
  for (const [name, fails] of [
    ['throws', "() => { throw new Error('no config') }"],
    ['rejects', "async () => { throw new Error('no config') }"],
  ] as const) {
    const file = moduleOf(name, `export const createTransport = ${fails}\nexport const createApp = ${fails}`)
    for (const [called, loading] of [
      ['createTransport()', loadTransport(file)],
      ['createApp()', loadApp(file, { observe: () => {} })],
    ] as const)
      await assert.rejects(loading, (error) => {
        assert.ok(isWaybillError(error, 'INVALID_FILE'))
        assert.ok(error.message.startsWith(`${called} of ${file} failed: no config (at --`), error.message)
        assert.equal((error.cause as Error).message, 'no config')
        return true
      })
  }
})

test('an error of ours keeps its code', async () => {
  const waybill = JSON.stringify(import.meta.resolve('waybill'))
  const file = moduleOf(
    'ours',
    `import { WaybillError } from ${waybill}\nexport const createApp = () => { throw new WaybillError('DATABASE_UNREACHABLE', 'away') }`,
  )
  await assert.rejects(loadApp(file, { observe: () => {} }), { code: 'DATABASE_UNREACHABLE', message: 'away' })
})

test('one that never ends has a limit', async () => {
  const file = moduleOf('never', 'export const createTransport = () => new Promise(() => {})')
  await assert.rejects(loadTransport(file, 1), {
    code: 'TIMEOUT',
    message: /^createTransport\(\) of .* did not end in time \(allowed: at most 1 ms/,
  })
})
