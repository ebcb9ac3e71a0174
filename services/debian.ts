import { chmod, mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MissingToolError, runCommand } from './command.ts'

const APT_LIMIT_MS = 180_000
const APT = ['-q', '-o', 'Acquire::Retries=2', '-o', 'Acquire::http::Timeout=20', '-o', 'APT::Sandbox::User=root']
/** What every system has; a second C library beside the first would be worse than none. */
const BASE = /^(libc6|libgcc-s1|libstdc\+\+6|libsystemd0|libssl\d.*)$/

/** Unpacks Debian's packages, and the libraries that they need, into `folder`, without installing anything in the system. */
export async function unpackDebian(folder: string, packages: readonly string[]): Promise<void> {
  if (process.platform !== 'linux') throw new MissingToolError('there is a package for Linux only')
  const debs = join(folder, 'debs')
  await mkdir(debs)
  // Otherwise the downloader's own user must be able to write here.
  await chmod(debs, 0o755)
  const known = await download(debs, packages, []).catch(() => undefined)
  if (known === undefined) await download(debs, packages, await refreshLists(folder))
  for (const file of await readdir(debs)) await runCommand('dpkg', ['-x', join(debs, file), folder])
  await Promise.all(['debs', 'apt'].map((name) => rm(join(folder, name), { recursive: true, force: true })))
}

/** The environment in which programs of such a folder find their libraries. */
export async function debianEnvironment(folder: string): Promise<Readonly<Record<string, string>>> {
  const triplets = await readdir(join(folder, 'usr', 'lib'))
  return { LD_LIBRARY_PATH: triplets.map((name) => join(folder, 'usr', 'lib', name)).join(':') }
}

async function download(debs: string, packages: readonly string[], options: readonly string[]): Promise<true> {
  const NEEDS = ['--recurse', '--no-recommends', '--no-suggests', '--no-conflicts', '--no-breaks', '--no-replaces', '--no-enhances']
  const listed = await runCommand('apt-cache', [...options, 'depends', ...NEEDS, ...packages])
  const libraries = [...listed.matchAll(/^ +\|?(?:Pre)?Depends: (lib[a-z0-9.+-]+)$/gm)].map((match) => match[1]!)
  const names = new Set([...packages, ...libraries.filter((name) => !BASE.test(name))])
  await runCommand('apt-get', [...options, ...APT, 'download', ...names], { cwd: debs, limitMs: APT_LIMIT_MS })
  return true
}

/** Lists of our own, where the system's are missing or older than the archive. The options to use them. */
async function refreshLists(folder: string): Promise<readonly string[]> {
  const [lists, cache] = ['lists', 'cache'].map((name) => join(folder, 'apt', name)) as [string, string]
  await Promise.all([mkdir(join(lists, 'partial'), { recursive: true }), mkdir(join(cache, 'archives', 'partial'), { recursive: true })])
  const options = ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache=${cache}`]
  await runCommand('apt-get', [...options, ...APT, 'update'], { limitMs: APT_LIMIT_MS })
  return options
}
