import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { PGlite, protocol } from '@electric-sql/pglite'
import fc from 'fast-check'
import type { PGliteLike } from './pglite.ts'
import { preparedPglite } from './pglite-prepared.ts'

let plain: PGlite
let pglite: PGliteLike

before(async () => {
  plain = await PGlite.create('memory://')
  pglite = preparedPglite(await PGlite.create('memory://'), protocol)
  const table =
    'create table kinds (id int primary key, words text[], at timestamptz, doc jsonb, bytes bytea, big bigint, ok bool, num numeric)'
  await plain.query(table)
  await pglite.query(table)
})
after(async () => {
  await plain.close()
  await pglite.close()
})

test("values of every common type come back as from PGlite's own query", async () => {
  let id = 0
  const kinds = fc.record({
    words: fc.option(fc.array(fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\u0000', '')))),
    at: fc.option(fc.date({ min: new Date('1900-01-01'), max: new Date('2100-01-01'), noInvalidDate: true })),
    doc: fc.option(fc.dictionary(fc.stringMatching(/^[a-z]{1,5}$/), fc.integer())),
    bytes: fc.option(fc.uint8Array()),
    big: fc.option(fc.integer()),
    ok: fc.option(fc.boolean()),
    num: fc.option(fc.integer()),
  })
  await fc.assert(
    fc.asyncProperty(kinds, async ({ words, at, doc, bytes, big, ok, num }) => {
      const params = [++id, words, at, doc, bytes, big, ok, num]
      const results: unknown[] = []
      for (const database of [plain, pglite]) {
        await database.query('insert into kinds values ($1, $2, $3, $4, $5, $6, $7, $8)', params)
        results.push((await database.query('select * from kinds where id = $1', [id])).rows)
      }
      assert.deepEqual(results[1], results[0])
    }),
    { numRuns: 60 },
  )
})

test('a failed statement fails as PostgreSQL says, and the next one works', async () => {
  await assert.rejects(pglite.query('selec 1'), { code: '42601' })
  await assert.rejects(pglite.query('select * from nowhere'), { code: '42P01' })
  await assert.rejects(pglite.query('select 1 where $1', []), { code: 'INVALID_OPTION' })
  assert.deepEqual((await pglite.query('select 1 as one')).rows, [{ one: 1 }])
})

test('a transaction rolls back with its callback, and when a swallowed error has ended it', async () => {
  const count = async (): Promise<unknown> => (await pglite.query('select count(*)::int as n from undone')).rows
  await pglite.query('create table undone (id int primary key)')
  const insert = 'insert into undone values ($1)'
  const abandoned = new Error('abandoned')
  await assert.rejects(
    pglite.transaction(async (tx) => {
      await tx.query(insert, [1])
      throw abandoned
    }),
    abandoned,
  )
  await assert.rejects(
    pglite.transaction(async (tx) => {
      await tx.query(insert, [1])
      await tx.query(insert, [1]).catch(() => {})
    }),
    { code: '23505' },
  )
  assert.deepEqual(await count(), [{ n: 0 }])
  await pglite.transaction((tx) => tx.query(insert, [1]))
  assert.deepEqual(await count(), [{ n: 1 }])
})

test('transactions and statements from everywhere wait for each other', async () => {
  await pglite.query('create table turns (id serial, who text)')
  const turn = (who: string): Promise<unknown> =>
    pglite.transaction(async (tx) => {
      await tx.query('insert into turns (who) values ($1)', [who])
      await Promise.resolve()
      await tx.query('insert into turns (who) values ($1)', [who])
    })
  await Promise.all([turn('a'), pglite.query("insert into turns (who) values ('alone')"), turn('b'), turn('c')])
  const { rows } = await pglite.query('select who from turns order by id')
  assert.deepEqual(
    rows.map((row) => (row as { who: string }).who),
    ['a', 'a', 'alone', 'b', 'b', 'c', 'c'],
  )
})

test('a statement that was prepared sees a table that has changed since', async () => {
  await pglite.query('create table grows (a int)')
  await pglite.query('insert into grows values (1)')
  for (let run = 0; run < 8; run++) assert.deepEqual((await pglite.query('select * from grows')).rows, [{ a: 1 }])
  await pglite.query('alter table grows add column b int default 2')
  assert.deepEqual((await pglite.query('select * from grows')).rows, [{ a: 1, b: 2 }])
  // Out of sight: nothing in this text tells that it changes a table.
  await pglite.query("do $$ begin execute 'al' || 'ter table grows add column c int default 3'; end $$")
  assert.deepEqual((await pglite.query('select * from grows')).rows, [{ a: 1, b: 2, c: 3 }])
})

test('more statements than are kept prepared still work, and so do old ones', async () => {
  for (let index = 0; index < 450; index++) assert.deepEqual((await pglite.query(`select ${index} as n`)).rows, [{ n: index }])
  assert.deepEqual((await pglite.query('select 0 as n')).rows, [{ n: 0 }])
})
