import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { ServiceName } from './names.ts'
import { ownServer } from './own-server.ts'
import type { ServerAddress } from './server.ts'

/** A server that ends with this process and doesn't keep it from ending. */
export interface HostedServer extends ServerAddress {
  close(): Promise<void>
}

/** Starts one that was installed by the package managers. */
export async function hostedServer(name: ServiceName): Promise<HostedServer> {
  // The package that starts PostgreSQL keeps its process from ending, so another process holds it.
  if (name === 'postgres') return keptElsewhere(name)
  const server = await ownServer(name)
  const { url, host, port, version, extra } = server
  return { name, url, host, port, version, extra, close: () => server.close() }
}

async function keptElsewhere(name: ServiceName): Promise<HostedServer> {
  const keeper = fileURLToPath(new URL('keeper.ts', import.meta.url))
  const child = spawn(process.execPath, [keeper, name, '--until-input-ends'], { stdio: ['pipe', 'pipe', 'ignore'], detached: true })
  const exit = once(child, 'exit')
  const told = once(createInterface({ input: child.stdout }), 'line').then(([line]) => String(line))
  const answer = JSON.parse(await Promise.race([told, exit.then(() => '{"error":"its process ended"}')])) as
    | ServerAddress
    | { readonly error: string }
  if ('error' in answer) throw new Error(answer.error)
  child.unref()
  for (const pipe of [child.stdin, child.stdout]) if ('unref' in pipe && typeof pipe.unref === 'function') pipe.unref()
  const { url, host, port, version, extra } = answer
  const close = async () => {
    child.ref()
    child.stdin.end()
    await exit
  }
  return { name, url, host, port, version, extra, close }
}
