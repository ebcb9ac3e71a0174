import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Where servers are installed: `WAYBILL_SERVERS_FOLDER`, else the ignored folder `.waybill/servers`. */
export const cacheFolder = (): string => process.env['WAYBILL_SERVERS_FOLDER'] ?? join(ROOT, '.waybill', 'servers')

const TOUCH_MS = 2_000
/** A lock that nobody has touched for so long belongs to a process that is gone. */
const STALE_MS = 15_000
const POLL_MS = 200
/** How long is waited for the installation by another process. */
const WAIT_MAX_MS = 10 * 60_000

/**
 * The folder `name` of the cache, made by `install` where it isn't there. Several processes may ask at once: one installs, the others wait. `install`
 * works in a folder beside, which gets its name when all is there: what is found is whole, whatever died on the way.
 */
export async function installOnce(name: string, install: (folder: string) => Promise<void>): Promise<string> {
  const cache = cacheFolder()
  const target = join(cache, name)
  if (existsSync(target)) return target
  await mkdir(cache, { recursive: true })
  const release = await acquire(join(cache, `${name}.lock`), () => existsSync(target))
  try {
    if (!existsSync(target)) await installInto(target, install)
  } finally {
    await release()
  }
  return target
}

async function installInto(target: string, install: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(`${target}.new-`)
  try {
    await install(folder)
    await rename(folder, target)
  } catch (error) {
    // Of two that both believed to hold the lock, one comes second: it uses what the first one left.
    if (!existsSync(target)) throw error
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/**
 * Waits until the lock file is ours or `isDone`. The lock only spares work: it is the rename that keeps two from mixing their files.
 */
async function acquire(lock: string, isDone: () => boolean): Promise<() => Promise<void>> {
  const deadline = Date.now() + WAIT_MAX_MS
  while (!(await create(lock))) {
    if (isDone()) return async () => {}
    if (Date.now() > deadline)
      throw new Error(`another process has been installing for ${WAIT_MAX_MS / 60_000} minutes; if there is none, delete ${lock}`)
    if (await isStale(lock)) await rm(lock, { force: true })
    else await pause(POLL_MS)
  }
  const touch = setInterval(() => {
    const now = new Date()
    // Where the file is gone somebody took us for dead; the rename decides then.
    utimes(lock, now, now).catch(() => {})
  }, TOUCH_MS)
  touch.unref()
  return async () => {
    clearInterval(touch)
    await rm(lock, { force: true })
  }
}

async function create(lock: string): Promise<boolean> {
  try {
    await writeFile(lock, `${process.pid}\n`, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

async function isStale(lock: string): Promise<boolean> {
  try {
    return Date.now() - (await stat(lock)).mtimeMs > STALE_MS
  } catch {
    // Gone in between: not stale, just free.
    return false
  }
}
