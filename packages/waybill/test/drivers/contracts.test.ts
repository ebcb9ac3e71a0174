import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { databaseStorage } from '../../src/postgres.ts'
import { deadLetterStoreContract } from '../../src/testing/dead-letter-store-contract.ts'
import { inboxStoreContract } from '../../src/testing/inbox-store-contract.ts'
import { ORDER_TESTS } from '../../src/testing/outbox-order-contract.ts'
import { outboxStoreContract } from '../../src/testing/outbox-store-contract.ts'
import { testPostgres } from '../../src/testing/test-postgres.ts'
import { type AnyFixture, FIXTURES } from './fixtures.ts'

// Seconds each, and about the statements rather than who carries them: these are kept to `pg`, where the whole suite runs. What is left of it shows
// parameters, results, errors, locks and concurrent transactions through each driver.
const SLOW: readonly string[] = [ORDER_TESTS.appendAfter, ORDER_TESTS.deaths]

const { PGlite: _, 'Drizzle over postgres.js': __, ...drivers } = FIXTURES

for (const [name, open] of Object.entries(drivers)) {
  suite(name, () => {
    let driver: AnyFixture
    let schemas = 0
    const left: string[] = []
    before(async () => {
      driver = await open((await testPostgres()).url())
    })
    after(() => driver.close())

    const make = async () =>
      databaseStorage(driver.database, { schema: `with_${name.replace('.', '_').toLowerCase()}_${++schemas}`, prefix: 'wb_' })
    const declare = (title: string, run: () => Promise<void>) => {
      if (SLOW.includes(title)) left.push(title)
      else test(title, run)
    }
    outboxStoreContract(declare, make)
    inboxStoreContract(declare, make)
    deadLetterStoreContract(declare, make)
    assert.deepEqual(left.toSorted(), SLOW.toSorted(), 'what is left out is still there under these names')
  })
}
