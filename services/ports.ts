import { randomInt } from 'node:crypto'
import { connect, createServer } from 'node:net'

// Below what systems give to outgoing connections (from 32,768 on): the port of a stopped server would otherwise be given to somebody who connects, and a
// client that tries the port again and again could even be connected with itself.
const LOWEST = 15_000
const HIGHEST = 32_000
const TRIES_MAX = 200

/** `count` different ports of 127.0.0.1 that nobody listens on at the moment. Another process may take one before you do. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const found = new Set<number>()
  for (let tries = 0; found.size < count; tries++) {
    if (tries === TRIES_MAX) throw new Error(`no ${count} free ports between ${LOWEST} and ${HIGHEST} in ${TRIES_MAX} tries`)
    const port = randomInt(LOWEST, HIGHEST)
    if (!found.has(port) && (await isFree(port))) found.add(port)
  }
  return [...found]
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}

/**
 * Connects, writes `request`, and gives back what has come by the time `isWhole` says so, the other side closes, or `limitMs` has passed.
 * Undefined where nobody answers.
 */
export function ask(
  address: { readonly host: string; readonly port: number },
  request: string | Buffer,
  isWhole: (answer: Buffer) => boolean,
  limitMs = 1_000,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const parts: Buffer[] = []
    const socket = connect(address)
    const end = (answer: Buffer | undefined) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(limitMs, () => end(parts.length === 0 ? undefined : Buffer.concat(parts)))
    socket.once('error', () => end(undefined))
    socket.once('connect', () => socket.write(request))
    socket.once('close', () => end(parts.length === 0 ? undefined : Buffer.concat(parts)))
    socket.on('data', (part: Buffer) => {
      parts.push(part)
      const answer = Buffer.concat(parts)
      if (isWhole(answer)) end(answer)
    })
  })
}

/** The body of a successful GET, undefined where nobody answers or the answer is a refusal. */
export async function get(
  url: string,
  { headers = {}, limitMs = 2_000 }: { readonly headers?: Readonly<Record<string, string>>; readonly limitMs?: number } = {},
): Promise<string | undefined> {
  try {
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(limitMs) })
    const body = await response.text()
    return response.ok ? body : undefined
  } catch {
    // Nobody there yet, or not any more: for whoever asks that is an answer.
    return undefined
  }
}
