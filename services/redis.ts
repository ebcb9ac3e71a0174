import { join } from 'node:path'
import { installOnce } from './cache.ts'
import { messageOf, runCommand } from './command.ts'
import { type Certificate, makeCertificate, newSecret, newUsers, type Users } from './credentials.ts'
import { debianEnvironment, unpackDebian } from './debian.ts'
import { ask, freePorts } from './ports.ts'
import type { PreparedServer, ServerOptions } from './server.ts'
import { isAtLeast, MINIMUM, VERSIONS } from './versions.ts'

/** A server program, and what it needs to find its libraries. */
interface RedisProgram {
  readonly program: string
  readonly env: Readonly<Record<string, string>>
  readonly version: string
}

/**
 * Redis with an append-only file that is flushed every second; `settings` are its own directives. With `auth` the URL has user and password.
 * `extra`: `user`, `password`, `limitedUser`, `limitedPassword`, `defaultPassword` (of the user without a name); `tlsUrl`, `caFile`, `certFile`, `keyFile`.
 */
export async function prepareRedis(folder: string, options: ServerOptions): Promise<PreparedServer> {
  const { program, env, version } = await findRedis()
  const [port, tlsPort] = await freePorts(2)
  const auth = options.auth === undefined ? undefined : redisUsers()
  const tls = options.tls === undefined ? undefined : await makeCertificate(folder)
  const settings: Record<string, string> = {
    appendonly: 'yes',
    appendfsync: 'everysec',
    save: '',
    'repl-diskless-sync-delay': '0',
    ...(tls === undefined ? {} : tlsSettings(tls, tlsPort!)),
    ...options.settings,
  }
  const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
  const who = auth === undefined ? '' : `${auth.extra.user}:${auth.extra.password}@`
  return {
    name: 'redis',
    url: `redis://${who}127.0.0.1:${port}`,
    host: '127.0.0.1',
    port: port!,
    version,
    extra: { ...auth?.extra, ...(tls === undefined ? {} : { ...tls, tlsUrl: `rediss://${who}127.0.0.1:${tlsPort}` }) },
    program,
    args: ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--daemonize', 'no', ...flags, ...(auth?.flags ?? [])],
    env,
    // While it reads its file it says LOADING; who needs a password is told NOAUTH, which is an answer.
    isReady: async () => /^(\+PONG|-NOAUTH)/.test((await redisCommand('127.0.0.1', port!, 'PING')) ?? ''),
    startLimitMs: 30_000,
  }
}

function redisUsers(): { readonly extra: Users & { readonly defaultPassword: string }; readonly flags: readonly string[] } {
  const extra = { ...newUsers(), defaultPassword: newSecret() }
  const { user, password, limitedUser, limitedPassword, defaultPassword } = extra
  const all = ['--user', user, 'on', `>${password}`, '~*', '&*', '+@all']
  const limited = ['--user', limitedUser, 'on', `>${limitedPassword}`, '~limited:*', '+@read', '+@connection']
  return { extra, flags: ['--requirepass', defaultPassword, ...all, ...limited] }
}

const tlsSettings = ({ caFile, certFile, keyFile }: Certificate, port: number): Readonly<Record<string, string>> => ({
  'tls-port': String(port),
  'tls-ca-cert-file': caFile,
  'tls-cert-file': certFile,
  'tls-key-file': keyFile,
  'tls-auth-clients': 'no',
})

const REPLY_LIMIT_MS = 1_000

/** The reply to an inline command, undefined where nobody answers. */
export async function redisCommand(host: string, port: number, command: string): Promise<string | undefined> {
  const answer = await ask({ host, port }, `${command}\r\n`, (bytes) => isWholeReply(bytes.toString('utf8')), REPLY_LIMIT_MS)
  return answer?.toString('utf8')
}

function isWholeReply(text: string): boolean {
  const end = text.indexOf('\r\n')
  if (end === -1) return false
  return text.startsWith('$') ? Buffer.byteLength(text) >= end + 2 + Number(text.slice(1, end)) + 2 : true
}

/** The version of the server at an address, undefined where it doesn't tell. */
export async function redisVersion(host: string, port: number): Promise<string | undefined> {
  return /redis_version:(\S+)/.exec((await redisCommand(host, port, 'INFO server')) ?? '')?.[1]
}

/** One of the PATH where it is recent enough, else Debian's package, unpacked into the cache. */
async function findRedis(): Promise<RedisProgram> {
  const own = await versionOf('redis-server', {}).catch(() => undefined)
  if (own !== undefined && isAtLeast(own, MINIMUM.redis)) return { program: 'redis-server', env: {}, version: own }
  try {
    return await unpacked(await installOnce(`redis-${VERSIONS.redis}`, installRedis))
  } catch (cause) {
    const found = own === undefined ? '' : ` (the one on the PATH is ${own})`
    throw new Error(
      `no Redis ${MINIMUM.redis} or newer${found}: ${messageOf(cause)}\nStart Docker, or set REDIS_URL, or install it: apt-get install redis-server, brew install redis`,
      { cause },
    )
  }
}

async function versionOf(program: string, env: Readonly<Record<string, string>>): Promise<string> {
  return /v=(\S+)/.exec(await runCommand(program, ['--version'], { env, limitMs: 10_000 }))?.[1] ?? 'unknown'
}

async function unpacked(folder: string): Promise<RedisProgram> {
  const env = await debianEnvironment(folder)
  const program = join(folder, 'usr', 'bin', 'redis-server')
  return { program, env, version: await versionOf(program, env) }
}

async function installRedis(folder: string): Promise<void> {
  await unpackDebian(folder, ['redis-server', 'redis-tools'])
  await unpacked(folder)
}

/** Redis' own client for the terminal, from where the server is. */
export async function redisCli(): Promise<{ readonly program: string; readonly env: Readonly<Record<string, string>> }> {
  const { program, env } = await findRedis()
  return { program: program.replace(/redis-server$/, 'redis-cli'), env }
}
