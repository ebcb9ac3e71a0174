import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const here = import.meta.dirname

/** What each example must print; an example without an entry fails. */
const EXPECTED: Readonly<Record<string, RegExp>> = {
  '01-first-road.ts': /^ASYNC_ONLY pending \[ \{ id: 'o-1', pence: 1250 \} \]$/m,
  '02-strategies.ts':
    /^SYNC_ONLY +delivered confirmed: true\nASYNC_ONLY +pending +confirmed: false\nHYBRID_FAST +delivered confirmed: true\nHYBRID_RELIABLE +pending +confirmed: true\n4 handled, each once$/m,
  '03-commands-and-queries.ts': /^o-1 costs 1250\n.*payload\.pence/m,
  '04-batch-read-model.ts': /'code-0', quantity: 334.*'code-1', quantity: 333.*'code-2', quantity: 333/s,
}

for (const file of readdirSync(here).filter((name) => /^\d\d-.*\.ts$/.test(name))) {
  test(`${file} runs and prints what it says`, async () => {
    const { stdout } = await run(process.execPath, ['--conditions=waybill:source', `${here}/${file}`], { timeout: 120_000 })
    assert.match(stdout, EXPECTED[file] ?? assert.fail(`${file} has no expected output`))
  })
}

test("the README's first example is the first example, and fits one screen", () => {
  const readme = readFileSync(`${here}/../README.md`, 'utf8')
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readme) ?? []
  assert.equal(block, readFileSync(`${here}/01-first-road.ts`, 'utf8'))
  assert.ok(block.split('\n').length <= 50)
})
