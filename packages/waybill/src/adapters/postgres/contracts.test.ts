import { after, test } from 'node:test'
import { PGlite } from '@electric-sql/pglite'
import { deadLetterStoreContract } from '../../testing/dead-letter-store-contract.ts'
import { inboxStoreContract } from '../../testing/inbox-store-contract.ts'
import { outboxStoreContract } from '../../testing/outbox-store-contract.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { postgresStorage } from './pg.ts'
import { pgliteStorage } from './pglite.ts'

let pglite: Promise<PGlite> | undefined
let schemas = 0

after(async () => {
  await (await pglite)?.close()
})

const makers = {
  // One database for all, a schema for each: opening a PGlite takes seconds.
  PGlite: {
    make: async () => pgliteStorage(await (pglite ??= PGlite.create('memory://')), { schema: `test_${++schemas}`, migrate: false }),
    traits: { concurrent: false },
  },
  PostgreSQL: {
    make: async () => {
      const server = await testPostgres()
      return postgresStorage(server.url(), { schema: server.schema(), prefix: 'wb_', poolMax: 30 })
    },
    traits: { concurrent: true },
  },
  'PostgreSQL that keeps published rows': {
    make: async () => {
      const server = await testPostgres()
      return postgresStorage(server.url(), { schema: server.schema(), poolMax: 30, keepPublishedMs: 3_600_000 })
    },
    traits: { concurrent: true },
  },
}

for (const [name, { make, traits }] of Object.entries(makers)) {
  const declare = (title: string, run: () => Promise<void>) => test(`${name}: ${title}`, run)
  outboxStoreContract(declare, make, traits)
  // Kept rows are the outbox's alone.
  if (name.endsWith('rows')) continue
  inboxStoreContract(declare, make)
  deadLetterStoreContract(declare, make)
}
