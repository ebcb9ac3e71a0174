import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

// What a user gets: the packed library and the packed command, each installed where nothing else of ours is.

const root = fileURLToPath(new URL('../../..', import.meta.url))
const library = join(root, 'packages/waybill')
const server = join(root, 'packages/server')
const folder = mkdtempSync(join(tmpdir(), 'package-'))
after(() => rmSync(folder, { recursive: true, force: true }))

interface Manifest {
  readonly name: string
  readonly version: string
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly bin?: Readonly<Record<string, string>>
}
const readManifest = (path: string): Manifest => JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')) as Manifest
const manifest = readManifest(library)
const subpaths = Object.keys(manifest.exports).filter((path) => path !== './package.json')
const specifierOf = (subpath: string): string => manifest.name + subpath.slice(1)

/** What npm tells its scripts, which a nested npm would take for its own settings; what tests are told of servers, which a user has not set. */
const NOT_PASSED_ON = /^npm_|^(?:KAFKA|NATS|REDIS|PULSAR|DATABASE|POSTGRES|WAYBILL|MESSAGE_BUS)_|^NODE_(?:TEST_CONTEXT|OPTIONS)$/i

/** Runs a program to its end, in the environment of a user. */
function run(
  program: string,
  args: readonly string[],
  cwd: string,
): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !NOT_PASSED_ON.test(name)))
  return spawnSync(program, args, { cwd, encoding: 'utf8', env, timeout: 300_000 })
}

function mustRun(program: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = run(program, args, cwd)
  assert.equal(status, 0, `${basename(program)} ${args.join(' ')} failed:\n${stdout}${stderr}`)
  return stdout
}

/** Builds and packs; gives back the tarball. What an earlier build left behind must not get in. */
function pack(packageFolder: string): string {
  rmSync(join(packageFolder, 'dist'), { recursive: true, force: true })
  const into = mkdtempSync(join(folder, 'packed-'))
  mustRun('npm', ['pack', '--pack-destination', into], packageFolder)
  const [tarball] = readdirSync(into)
  assert.ok(tarball, 'npm pack wrote no tarball')
  return join(into, tarball)
}

function makeProject(name: string): string {
  const project = join(folder, name)
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name, private: true, type: 'module' }))
  return project
}

/** Puts a tarball where npm would put it. */
function unpack(tarball: string, project: string, name: string): string {
  const into = join(project, 'node_modules', name)
  mkdirSync(into, { recursive: true })
  mustRun('tar', ['-xzf', tarball, '-C', into, '--strip-components=1'], project)
  return into
}

/** Lends the project packages that this repository has installed already, so that the test needs no registry. */
function lend(project: string, packages: readonly string[]): void {
  for (const name of packages) {
    const at = join(project, 'node_modules', name)
    mkdirSync(dirname(at), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), at)
  }
}

const tsc = (project: string, args: readonly string[]): ReturnType<typeof run> =>
  run(
    process.execPath,
    [
      join(root, 'node_modules/typescript/bin/tsc'),
      '--ignoreConfig',
      '--noEmit',
      '--strict',
      '--target',
      'es2024',
      '--lib',
      'es2024,esnext.disposable',
      '--types',
      'node',
      ...args,
    ],
    project,
  )

const RESOLUTIONS = {
  nodenext: ['--module', 'nodenext', '--moduleResolution', 'nodenext'],
  bundler: ['--module', 'esnext', '--moduleResolution', 'bundler'],
} as const

let tarball = ''
let empty = ''
let installed = ''

before(() => {
  tarball = pack(library)
  empty = makeProject('empty')
  mustRun('npm', ['install', '--offline', '--no-audit', '--no-fund', tarball], empty)
  installed = join(empty, 'node_modules', manifest.name)
})

describe('the manifest', () => {
  test('there is at most one runtime dependency', () => {
    assert.ok(Object.keys(manifest.dependencies ?? {}).length <= 1)
  })

  test('each export is one entry file, under the same name in source, types and build', () => {
    for (const subpath of subpaths) {
      const name = subpath === '.' ? 'index' : subpath.slice(2)
      // Key order matters to whoever resolves: the first condition that applies wins.
      assert.equal(
        JSON.stringify(manifest.exports[subpath]),
        JSON.stringify({ 'waybill:source': `./src/${name}.ts`, types: `./dist/${name}.d.ts`, default: `./dist/${name}.js` }),
      )
    }
  })

  test('each entry file is exported, and an entry file holds named re-exports only', () => {
    const reExport = /export (?:type )?\{[^}]*\} from '[^']+'/g
    const comment = /\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm
    const entries = globSync('*.ts', { cwd: join(library, 'src') })
      .filter((file) => !file.endsWith('.test.ts'))
      .filter(
        (file) =>
          readFileSync(join(library, 'src', file), 'utf8')
            .replace(comment, '')
            .replace(reExport, '')
            .trim() === '',
      )
      .map((file) => (file === 'index.ts' ? '.' : `./${basename(file, '.ts')}`))
    assert.deepEqual(entries.toSorted(), subpaths.toSorted())
  })
})

describe('the packed library', () => {
  test('it brings nothing else along', () => {
    const names = readdirSync(join(empty, 'node_modules')).filter((name) => !name.startsWith('.'))
    assert.deepEqual(names, [manifest.name, ...Object.keys(manifest.dependencies ?? {})].toSorted())
  })

  test('it holds the licence, the README and the build, and neither source nor tests', () => {
    const files = globSync('**/*', { cwd: installed }).filter((file) => statSync(join(installed, file)).isFile())
    for (const file of ['LICENSE', 'README.md', 'package.json']) assert.ok(files.includes(file), `${file} is missing`)
    const stray = files.filter((file) => !/^(LICENSE|README\.md|package\.json)$|^dist\/.+\.(js|d\.ts)$/.test(file) || /\.test\./.test(file))
    assert.deepEqual(stray, [])
    assert.match(readFileSync(join(installed, 'LICENSE'), 'utf8'), /Apache License\s+Version 2\.0/)
  })

  test('its types name no package, so they compile without any peer', () => {
    const foreign = globSync('dist/**/*.d.ts', { cwd: installed }).flatMap((file) =>
      [...readFileSync(join(installed, file), 'utf8').matchAll(/(?:from |import\()['"]([^'"]+)['"]/g)]
        .map(([, name]) => `${file}: ${name}`)
        .filter((line) => !/: (\.|node:)/.test(line)),
    )
    assert.deepEqual(foreign, [])
  })

  for (const subpath of subpaths) {
    test(`import and require() of ${specifierOf(subpath)} work without any peer`, () => {
      const specifier = specifierOf(subpath)
      const imported = mustRun(
        process.execPath,
        ['--input-type=module', '-e', `console.log(Object.keys(await import('${specifier}')).sort().join())`],
        empty,
      )
      const required = mustRun(
        process.execPath,
        [
          '--input-type=commonjs',
          '-e',
          `console.log(Object.keys(require('${specifier}')).filter((name) => name !== '__esModule' && name !== 'module.exports').sort().join())`,
        ],
        empty,
      )
      assert.equal(required, imported)
      assert.ok(imported.trim().length > 0, 'it exports nothing')
    })
  }

  for (const [name, flags] of Object.entries(RESOLUTIONS)) {
    test(`all its types are checked under strict with ${name} resolution`, () => {
      const project = makeProject(`types-${name}`)
      unpack(tarball, project, manifest.name)
      lend(project, ['@types/node', 'undici-types'])
      writeFileSync(
        join(project, 'all.ts'),
        subpaths.map((subpath, index) => `export * as n${index} from '${specifierOf(subpath)}'\n`).join(''),
      )
      // Node's own types are checked along; they pass.
      const { status, stdout } = tsc(project, [...flags, '--skipLibCheck', 'false', '--exactOptionalPropertyTypes', 'all.ts'])
      assert.equal(status, 0, stdout)
    })
  }
})

describe("the README's first example, in a project of its own", () => {
  let project = ''
  let code = ''

  before(() => {
    const [, block] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? []
    assert.ok(block, 'the README has no TypeScript example')
    code = block
    project = makeProject('consumer')
    unpack(tarball, project, manifest.name)
    const packages = [...code.matchAll(/from '((?:@[^/']+\/)?[^/']+)/g)].map(([, name]) => name!).filter((name) => name !== manifest.name)
    lend(project, [...new Set([...packages, '@electric-sql/pglite', '@types/node', 'undici-types'])])
    writeFileSync(join(project, 'consumer.ts'), code)
  })

  for (const [name, flags] of Object.entries(RESOLUTIONS)) {
    test(`it compiles under strict with ${name} resolution`, () => {
      const { status, stdout } = tsc(project, [...flags, '--skipLibCheck', 'consumer.ts'])
      assert.equal(status, 0, stdout)
    })
  }

  test('a wrong payload does not compile', () => {
    // Without this, types that had become `any` would compile everything.
    const wrong = code.replace('pence: 1250', "pence: 'much'")
    assert.notEqual(wrong, code)
    writeFileSync(join(project, 'wrong.ts'), wrong)
    const { status, stdout } = tsc(project, [...RESOLUTIONS.nodenext, '--skipLibCheck', 'wrong.ts'])
    assert.notEqual(status, 0)
    assert.match(stdout, /wrong\.ts\(\d+,\d+\): error TS2322/)
  })

  test('it runs, and prints what its comment says', () => {
    const [, expected] = /^console\.log\(.*\) \/\/ (.*)$/m.exec(code) ?? []
    assert.ok(expected, 'the example says nowhere what it prints')
    assert.equal(mustRun(process.execPath, ['consumer.ts'], project).trim(), expected)
  })
})

describe('the packed command', () => {
  let project = ''
  let command = ''
  let orders = ''

  before(() => {
    // The server's build reads the library's types from its own build, which the first pack has made.
    assert.ok(existsSync(join(library, 'dist/index.d.ts')))
    const packed = pack(server)
    project = makeProject('command')
    unpack(tarball, project, manifest.name)
    const at = unpack(packed, project, 'waybill-server')
    lend(
      project,
      Object.keys(readManifest(server).dependencies ?? {}).filter((name) => name !== manifest.name),
    )
    const bin = readManifest(at).bin?.['waybill']
    assert.ok(bin, 'there is no command named waybill')
    command = join(at, bin)
    const data = globSync('*.csv.gz', { cwd: join(server, 'data') })[0]
    assert.ok(data, 'there is no data file')
    const lines = gunzipSync(readFileSync(join(server, 'data', data)))
      .toString('utf8')
      .split('\n')
    orders = join(project, 'small.csv')
    writeFileSync(orders, `${lines.slice(0, 1_500).join('\n')}\n`)
  })

  test('it holds the licence, the README and no TypeScript but types', () => {
    const at = join(project, 'node_modules/waybill-server')
    const files = globSync('**/*', { cwd: at }).filter((file) => statSync(join(at, file)).isFile())
    for (const file of ['LICENSE', 'README.md']) assert.ok(files.includes(file), `${file} is missing`)
    assert.deepEqual(
      files.filter((file) => (file.endsWith('.ts') && !file.endsWith('.d.ts')) || /\.test\./.test(file)),
      [],
    )
  })

  test('it asks for the library of its own version', () => {
    assert.equal(readManifest(server).dependencies?.[manifest.name], manifest.version)
  })

  test('it is executable and tells its version', () => {
    assert.ok((statSync(command).mode & 0o111) !== 0, `${relative(project, command)} is not executable`)
    assert.match(readFileSync(command, 'utf8'), /^#!\/usr\/bin\/env node\n/)
    assert.ok(mustRun(process.execPath, [command, '--version'], project).includes(readManifest(server).version))
  })

  test('its demo runs from the build, kills included', () => {
    const report = JSON.parse(
      mustRun(process.execPath, [command, 'demo', '--json', '--kills', '2', '--seed', '1', '--data', orders], project),
    ) as Record<string, unknown>
    assert.deepEqual([report['lost'], report['duplicateEffects'], report['orderViolations'], report['kills']], [0, 0, 0, 2])
  })

  for (const [flag, name, variable] of [
    ['--broker', 'kafka', 'KAFKA_BOOTSTRAP_SERVERS'],
    ['--broker', 'nats', 'NATS_URL'],
    ['--broker', 'redis', 'REDIS_URL'],
    ['--broker', 'pulsar', 'PULSAR_URL'],
    ['--database', 'postgres', 'DATABASE_URL'],
  ] as const)
    test(`its demo over ${name}, of which nobody has said where it is, names ${variable}`, () => {
      const { status, stdout, stderr } = run(process.execPath, [command, 'demo', flag, name, '--data', orders], project)
      assert.deepEqual([status, stdout], [2, ''], stderr)
      assert.match(stderr, new RegExp(`no ${name} server.*allowed: ${variable} `))
    })
})
