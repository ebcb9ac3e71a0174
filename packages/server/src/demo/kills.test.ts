import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { readLastWords, takeKill } from './kills.ts'
import type { PlannedKill } from './plan.ts'

const root = mkdtempSync(join(tmpdir(), 'waybill-kills-'))
after(() => rmSync(root, { recursive: true }))

const KILLS: readonly PlannedKill[] = [
  { point: 'relay.afterPublish', hit: 2, afterInvoices: 10 },
  { point: 'inbox.beforeCommit', hit: 1, afterInvoices: 20 },
]

/** A process that comes to points in this order; `see 10`: ten invoices are published. Tells what it came to before it died. */
function passing(
  folder: string,
  run: number,
  ...steps: readonly string[]
): { readonly signal: string | null; readonly passed: readonly string[] } {
  const script = `
    import { createKiller } from ${JSON.stringify(new URL('kills.ts', import.meta.url).href)}
    import { crashpoint } from ${JSON.stringify(new URL('../../../waybill/src/core/crashpoint.ts', import.meta.url).href)}
    import { writeSync } from 'node:fs'
    const killer = createKiller(${JSON.stringify(folder)}, ${run}, ${JSON.stringify(KILLS)})
    for (const step of ${JSON.stringify(steps)}) {
      if (step.startsWith('see ')) killer.see(Number(step.slice(4)))
      else crashpoint(step)
      writeSync(1, step + '\\n')
    }`
  const { signal, stdout, stderr } = spawnSync(process.execPath, ['--conditions=waybill:source', '--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  assert.equal(stderr, '')
  return { signal, passed: stdout.split('\n').slice(0, -1) }
}

test('a process dies at its point, counted from when enough is published, and leaves its last words', () => {
  const folder = mkdtempSync(join(root, 'one-'))
  const { signal, passed } = passing(
    folder,
    0,
    'see 9',
    'relay.afterPublish',
    'see 10',
    'relay.afterPublish',
    'relay.afterPublish',
    'never',
  )
  assert.deepEqual([signal, passed], ['SIGKILL', ['see 9', 'relay.afterPublish', 'see 10', 'relay.afterPublish']])
  assert.deepEqual(readLastWords(folder), [{ index: 0, run: 0, point: 'relay.afterPublish', hit: 2 }])
  assert.equal(passing(folder, 1, 'see 20', 'relay.afterPublish', 'relay.afterPublish', 'inbox.beforeCommit').signal, 'SIGKILL')
  assert.equal(passing(folder, 2, 'see 99', 'relay.afterPublish', 'inbox.beforeCommit').signal, null)
  assert.deepEqual(
    readLastWords(folder).map(({ run }) => run),
    [0, 1],
  )
})

test('of two that look out for the same kill only the first one dies', () => {
  const folder = mkdtempSync(join(root, 'two-'))
  assert.equal(takeKill(folder, 7, 0, KILLS[0]!), true)
  assert.equal(takeKill(folder, 8, 0, KILLS[0]!), false)
  assert.equal(passing(folder, 8, 'see 10', 'relay.afterPublish', 'relay.afterPublish').signal, null)
})
