import { join } from 'node:path'
import { installOnce } from './cache.ts'
import { runCommand } from './command.ts'
import { debianEnvironment, unpackDebian } from './debian.ts'

// Clients in other languages, for the tests that others read what we write and the other way round.

/** Pinned, like the servers. */
export const CLIENT_VERSIONS = { 'nats-py': '2.16.0', 'confluent-kafka': '2.16.1', 'pulsar-client': '3.13.0' } as const

const INSTALL_LIMIT_MS = 180_000

/** A program with what it needs to run. */
export interface ClientProgram {
  readonly program: string
  readonly env: Readonly<Record<string, string>>
}

/** Python with the clients of Kafka, NATS and Pulsar, installed once into the cache. Rejects with what is missing. */
export async function pythonClients(): Promise<ClientProgram> {
  const packages = Object.entries(CLIENT_VERSIONS).map(([name, version]) => `${name}==${version}`)
  const folder = await installOnce(`python-clients-${Object.values(CLIENT_VERSIONS).join('-')}`, async (target) => {
    const options = ['--quiet', '--no-input', '--disable-pip-version-check', '--only-binary', ':all:', '--target', target]
    await runCommand('python3', ['-m', 'pip', 'install', ...options, ...packages], { limitMs: INSTALL_LIMIT_MS })
  })
  return { program: 'python3', env: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1' } }
}

/** kcat, of the PATH or Debian's. Rejects with what is missing. */
export async function kcat(): Promise<ClientProgram> {
  const own = await runCommand('kcat', ['-V']).catch(() => undefined)
  if (own !== undefined) return { program: 'kcat', env: {} }
  const folder = await installOnce('kcat', async (target) => {
    await unpackDebian(target, ['kcat'])
    await runCommand(join(target, 'usr', 'bin', 'kcat'), ['-V'], { env: await debianEnvironment(target) })
  })
  return { program: join(folder, 'usr', 'bin', 'kcat'), env: await debianEnvironment(folder) }
}
