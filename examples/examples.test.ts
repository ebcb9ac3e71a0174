import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { testPostgres } from '../packages/waybill/src/testing/test-postgres.ts'
import { generatePrismaClient } from './drivers/prisma/generate.ts'

const run = promisify(execFile)
const here = import.meta.dirname

/** What each example must print; an example without an entry fails. */
const EXPECTED: Readonly<Record<string, RegExp>> = {
  '01-first-road.ts': /^ASYNC_ONLY pending \[ \{ id: 'o-1', pence: 1250 \} \]$/m,
  '02-strategies.ts':
    /^SYNC_ONLY +delivered confirmed: true\nASYNC_ONLY +pending +confirmed: false\nHYBRID_FAST +delivered confirmed: true\nHYBRID_RELIABLE +pending +confirmed: true\n4 handled, each once$/m,
  '03-commands-and-queries.ts': /^o-1 costs 1250\n.*payload\.pence/m,
  '04-batch-read-model.ts': /'code-0', quantity: 334.*'code-1', quantity: 333.*'code-2', quantity: 333/s,
  '06-any-broker/main.ts': /^handled \{ pence: 1250 \} over inprocess$/m,
}

for (const file of [...readdirSync(here).filter((name) => /^\d\d-.*\.ts$/.test(name)), '06-any-broker/main.ts']) {
  test(`${file} runs and prints what it says`, async () => {
    const options = { timeout: 120_000, env: { ...process.env, MESSAGE_BUS_TYPE: 'inprocess' } }
    const { stdout } = await run(process.execPath, ['--conditions=waybill:source', `${here}/${file}`], options)
    assert.match(stdout, EXPECTED[file] ?? assert.fail(`${file} has no expected output`))
  })
}

const drivers = `${here}/drivers`
const DRIVERS = [...readdirSync(drivers).filter((name) => name.endsWith('.ts')), 'prisma/prisma.ts']
const PRINTED =
  /^rolled back: out of stock\norders \[ (\w+ )?\{ id: 'o-1', pence: 1250 \}, (\w+ )?\{ id: 'o-2', pence: 300 \} \]\ninvoices \[ (\w+ )?\{ id: 'o-1', pence: 1250 \}, (\w+ )?\{ id: 'o-2', pence: 300 \} \]$/m

for (const file of DRIVERS) {
  test(`drivers/${file}: what is committed is handled once, what is rolled back is nowhere`, async () => {
    if (file.startsWith('prisma')) await generatePrismaClient()
    await withDatabase(async (url) => {
      const options = { timeout: 120_000, env: { ...process.env, DATABASE_URL: url } }
      const { stdout } = await run(process.execPath, ['--conditions=waybill:source', join(drivers, file)], options)
      assert.match(stdout.replaceAll(/\s+(?=[\]{}]|\w+ \{)/g, ' ').replaceAll(/([[{])\s+/g, '$1 '), PRINTED)
    })
  })
}

test("the Prisma example's types hold, once its client is there", async () => {
  await generatePrismaClient()
  const tsc = join(createRequire(import.meta.url).resolve('typescript/package.json'), '..', 'bin', 'tsc')
  await run(process.execPath, [tsc, '-p', join(drivers, 'prisma')], { timeout: 120_000 })
})

let databases = 0

/** A database of its own for each: they all make the same tables. On the server of DATABASE_URL, or else on one that is started here. */
async function withDatabase(use: (url: string) => Promise<void>): Promise<void> {
  const server = process.env['DATABASE_URL'] ?? (await testPostgres()).url()
  const name = `waybill_example_${process.pid}_${++databases}`
  const admin = new pg.Client({ connectionString: server })
  await admin.connect()
  try {
    await admin.query(`create database ${name}`)
    const url = new URL(server)
    url.pathname = `/${name}`
    await use(url.href)
  } finally {
    await admin.query(`drop database if exists ${name} with (force)`)
    await admin.end()
  }
}

test('docs/drivers.md: every line of code is a line of the example that its section links, and every example has its section', () => {
  const sections = readFileSync(`${here}/../docs/drivers.md`, 'utf8').split(/^## /m)
  const shown = new Set<string>()
  for (const section of sections) {
    const blocks = [...section.matchAll(/```ts\n([\s\S]*?)```/g)].flatMap(([, block]) => block!.trim().split('\n\n'))
    if (blocks.length === 0) continue
    const [, file] = /\(\.\.\/examples\/drivers\/([\w./-]+\.ts)\)/.exec(section) ?? assert.fail(`no example in "${section.slice(0, 40)}"`)
    const example = readFileSync(join(drivers, file!), 'utf8')
    for (const part of blocks) assert.ok(example.includes(part), `${file} has these lines:\n${part}`)
    shown.add(file!)
  }
  assert.deepEqual([...shown].toSorted(), DRIVERS.toSorted())
})

test('docs/own-transport.md: its code is that of the example', () => {
  const folder = `${here}/05-own-transport`
  const files = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'))
  const blocks = [...readFileSync(`${here}/../docs/own-transport.md`, 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(([, block]) => block!)
  assert.equal(blocks.length, 4)
  // The last one is the third with a report of its checks, which the example does not make.
  for (const block of blocks.slice(0, 3))
    assert.ok(
      files.some((file) => file.includes(block)),
      block,
    )
})

test("docs/brokers.md: its program is the example's", () => {
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readFileSync(`${here}/../docs/brokers.md`, 'utf8')) ?? []
  assert.equal(block, readFileSync(`${here}/06-any-broker/main.ts`, 'utf8'))
})

test("the README's first example is the first example, and fits one screen", () => {
  const readme = readFileSync(`${here}/../README.md`, 'utf8')
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readme) ?? []
  assert.equal(block, readFileSync(`${here}/01-first-road.ts`, 'utf8'))
  assert.ok(block.split('\n').length <= 50)
})
