import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

// A checker that finds nothing to check passes. So each rule that the project leans on is shown a file that breaks it, and one that doesn't.

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'checks-'))
after(() => rmSync(folder, { recursive: true, force: true }))

interface Diagnostic {
  readonly code: string
  readonly message: string
  readonly filename: string
}

/** One file per seed, with its path and text; the rule that must report it, or none. */
interface Seed {
  readonly promise: string
  readonly path: string
  readonly text: string
  readonly rule: string | undefined
}

const RESTRICTED = 'eslint(no-restricted-imports)'
const importing = (from: string) => `import { x } from '${from}'\nexport const y = x\n`

const seeds: readonly Seed[] = [
  { promise: 'core may not import a room', path: 'packages/waybill/src/core/a.ts', text: importing('../publish/x.ts'), rule: RESTRICTED },
  {
    promise: 'core may not import an entry file',
    path: 'packages/waybill/src/core/b.ts',
    text: importing('../index.ts'),
    rule: RESTRICTED,
  },
  { promise: 'core may import core', path: 'packages/waybill/src/core/c.ts', text: importing('./x.ts'), rule: undefined },
  {
    promise: 'codecs may not import a room',
    path: 'packages/waybill/src/codecs/a.ts',
    text: importing('../outbox/x.ts'),
    rule: RESTRICTED,
  },
  { promise: 'codecs may import core', path: 'packages/waybill/src/codecs/b.ts', text: importing('../core/x.ts'), rule: undefined },
  {
    promise: 'a room may not import another room',
    path: 'packages/waybill/src/outbox/a.ts',
    text: importing('../publish/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'a room may not import an adapter',
    path: 'packages/waybill/src/publish/a.ts',
    text: importing('../adapters/memory/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'a room may not import the composition',
    path: 'packages/waybill/src/consume/a.ts',
    text: importing('../waybill.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'a room may not import the package by name',
    path: 'packages/waybill/src/consume/b.ts',
    text: importing('waybill'),
    rule: RESTRICTED,
  },
  { promise: 'a room may import core', path: 'packages/waybill/src/consume/c.ts', text: importing('../core/x.ts'), rule: undefined },
  { promise: 'a room may import codecs', path: 'packages/waybill/src/consume/d.ts', text: importing('../codecs/x.ts'), rule: undefined },
  {
    promise: 'an adapter may not import another adapter',
    path: 'packages/waybill/src/adapters/memory/a.ts',
    text: importing('../postgres/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'an adapter may not import a room',
    path: 'packages/waybill/src/adapters/memory/b.ts',
    text: importing('../../outbox/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'an adapter may not import codecs',
    path: 'packages/waybill/src/adapters/memory/c.ts',
    text: importing('../../codecs/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'an adapter may import core',
    path: 'packages/waybill/src/adapters/memory/d.ts',
    text: importing('../../core/x.ts'),
    rule: undefined,
  },
  {
    promise: 'an adapter may import its own files',
    path: 'packages/waybill/src/adapters/memory/e.ts',
    text: importing('./x.ts'),
    rule: undefined,
  },
  {
    promise: 'testing may not import a room',
    path: 'packages/waybill/src/testing/a.ts',
    text: importing('../outbox/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'testing may not import the postgres adapter',
    path: 'packages/waybill/src/testing/b.ts',
    text: importing('../adapters/postgres/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'testing may import the memory adapter',
    path: 'packages/waybill/src/testing/c.ts',
    text: importing('../adapters/memory/x.ts'),
    rule: undefined,
  },
  {
    promise: 'a broken fixture may not import a room',
    path: 'packages/waybill/src/testing/broken/a.ts',
    text: importing('../../outbox/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'a broken fixture may import core and testing',
    path: 'packages/waybill/src/testing/broken/b.ts',
    text: importing('../../core/x.ts') + importing('../x.ts').replace(/[xy]\b/g, 'z'),
    rule: undefined,
  },
  { promise: 'testing may import codecs', path: 'packages/waybill/src/testing/d.ts', text: importing('../codecs/x.ts'), rule: undefined },
  {
    promise: 'an entry file may import every room',
    path: 'packages/waybill/src/entry.ts',
    text: importing('./outbox/x.ts'),
    rule: undefined,
  },
  {
    promise: 'a test of a room may import what it needs',
    path: 'packages/waybill/src/outbox/a.test.ts',
    text: importing('../publish/x.ts'),
    rule: undefined,
  },
  {
    promise: 'the server may not reach into the library',
    path: 'packages/server/src/a.ts',
    text: importing('../../waybill/src/core/x.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'the server may not import a private subpath',
    path: 'packages/server/src/b.ts',
    text: importing('waybill/dist/core/x.js'),
    rule: RESTRICTED,
  },
  {
    promise: 'the server may import public subpaths',
    path: 'packages/server/src/c.ts',
    text: importing('waybill/postgres'),
    rule: undefined,
  },
  { promise: 'the server may import the package', path: 'packages/server/src/d.ts', text: importing('waybill'), rule: undefined },
  {
    promise: 'an example may not reach into the library',
    path: 'examples/a.ts',
    text: importing('../packages/waybill/src/index.ts'),
    rule: RESTRICTED,
  },
  {
    promise: 'the library prints nothing',
    path: 'packages/waybill/src/publish/console.ts',
    text: `console.log('x')\nexport {}\n`,
    rule: 'eslint(no-console)',
  },
  { promise: 'the command may print', path: 'packages/server/src/console.ts', text: `console.log('x')\nexport {}\n`, rule: undefined },
  {
    promise: 'no promise is left floating',
    path: 'packages/waybill/src/publish/floating.ts',
    text: `const f = async (): Promise<void> => {}\nexport function g(): void {\n  f()\n}\n`,
    rule: 'typescript(no-floating-promises)',
  },
  {
    promise: 'a test awaits its promises too',
    path: 'packages/waybill/src/publish/floating.test.ts',
    text: `const f = async (): Promise<void> => {}\nexport function g(): void {\n  f()\n}\n`,
    rule: 'typescript(no-floating-promises)',
  },
  {
    promise: 'no promise is used as a condition',
    path: 'packages/waybill/src/publish/misused.ts',
    text: `const f = async (): Promise<boolean> => true\nexport const g = (): number => (f() ? 1 : 2)\n`,
    rule: 'typescript(no-misused-promises)',
  },
  {
    promise: 'nothing but a promise is awaited',
    path: 'packages/waybill/src/publish/thenable.ts',
    text: `export async function g(): Promise<number> {\n  const n = 1\n  await n\n  return n\n}\n`,
    rule: 'typescript(await-thenable)',
  },
  {
    promise: 'a switch over a union counts its cases',
    path: 'packages/waybill/src/publish/switch.ts',
    text: `export function g(kind: 'a' | 'b'): void {\n  switch (kind) {\n    case 'a':\n      g('b')\n  }\n}\n`,
    rule: 'typescript(switch-exhaustiveness-check)',
  },
  {
    promise: 'no default export',
    path: 'packages/waybill/src/publish/default.ts',
    text: `export default 1\n`,
    rule: 'import(no-default-export)',
  },
  {
    promise: 'no any',
    path: 'packages/waybill/src/publish/any.ts',
    text: `export const x: any = 1\n`,
    rule: 'typescript(no-explicit-any)',
  },
  {
    promise: 'no namespace',
    path: 'packages/waybill/src/publish/namespace.ts',
    text: `export namespace n {\n  export const x = 1\n}\n`,
    rule: 'typescript(no-namespace)',
  },
  {
    promise: 'a cycle is found (one side)',
    path: 'packages/waybill/src/core/cycle-a.ts',
    text: `import { b } from './cycle-b.ts'\nexport const a = (): number => b()\n`,
    rule: 'import(no-cycle)',
  },
  {
    promise: 'a cycle is found (other side)',
    path: 'packages/waybill/src/core/cycle-b.ts',
    text: `import { a } from './cycle-a.ts'\nexport const b = (): number => a()\n`,
    rule: 'import(no-cycle)',
  },
]

function write(path: string, text: string): void {
  const full = join(folder, path)
  mkdirSync(dirname(full), { recursive: true })
  writeFileSync(full, text)
}

function run(tool: string, args: readonly string[]): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  return spawnSync(process.execPath, [join(root, 'node_modules', tool, 'bin', tool === 'typescript' ? 'tsc' : tool), ...args], {
    cwd: folder,
    encoding: 'utf8',
  })
}

let found: readonly Diagnostic[] = []

before(() => {
  for (const file of ['.oxlintrc.json', '.oxfmtrc.json', 'tsconfig.base.json']) copyFileSync(join(root, file), join(folder, file))
  // Imports lead nowhere here; only lint is asked, and it needs types of nothing but the language.
  write(
    'tsconfig.json',
    '{ "extends": "./tsconfig.base.json", "compilerOptions": { "noEmit": true, "types": [] }, "include": ["packages", "examples"] }',
  )
  for (const { path, text } of seeds) write(path, text)
  const { stdout, stderr } = run('oxlint', ['--type-aware', '--format', 'json', '--deny-warnings'])
  assert.match(stdout, /^\{/, `oxlint gave no report: ${stdout}${stderr}`)
  found = (JSON.parse(stdout) as { diagnostics: Diagnostic[] }).diagnostics
})

describe('lint', () => {
  for (const { promise, path, rule } of seeds) {
    test(`${promise}: ${path}`, () => {
      const codes = found.filter(({ filename }) => filename.replaceAll('\\', '/').endsWith(path)).map(({ code }) => code)
      assert.deepEqual([...new Set(codes)], rule === undefined ? [] : [rule])
    })
  }
})

describe('format', () => {
  test('a badly formatted file fails the check, a good one passes', () => {
    write('good.ts', `export const x = 'a'\n`)
    write('bad.ts', `export const x = "a";\n`)
    assert.equal(run('oxfmt', ['--check', 'good.ts']).status, 0)
    assert.notEqual(run('oxfmt', ['--check', 'bad.ts']).status, 0)
  })
})

describe('types', () => {
  const flags = ['--noEmit', '--strict', '--erasableSyntaxOnly', '--types', '', '--ignoreConfig']

  test('a type error fails the check', () => {
    write('type-bad.ts', `export const x: string = 1\n`)
    assert.match(run('typescript', [...flags, 'type-bad.ts']).stdout, /TS2322/)
  })

  test('an enum fails the check, since Node can not run it as it is', () => {
    write('enum.ts', `export enum E {\n  A,\n}\n`)
    assert.match(run('typescript', [...flags, 'enum.ts']).stdout, /TS1294/)
  })
})
