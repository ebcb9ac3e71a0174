import type { SqlExecutor } from 'waybill'
import type { Effect } from './check.ts'
import { orderKeyOf } from './expected.ts'
import type { Invoice } from './invoices.ts'

// demo_effect has no unique constraint on purpose: whatever is done twice shows up twice.
const STATEMENTS = [
  'create table if not exists demo_customer (key text primary key, seq bigint not null)',
  'create table if not exists demo_order (invoice text primary key, key text not null, seq bigint not null)',
  'create table if not exists demo_stock (code text primary key, quantity bigint not null, moves bigint not null)',
  'create table if not exists demo_revenue (country text primary key, pence bigint not null)',
  `create table if not exists demo_effect (
    id bigserial primary key, consumer text not null, event_id text not null, event_type text not null, topic text not null,
    key text not null, seq bigint not null, causation_id text)`,
]

// Takes $1 to $7; the order of the arrays is the order of the rows' numbers.
const INSERT_EFFECTS = `insert into demo_effect (consumer, event_id, event_type, topic, key, seq, causation_id)
  select consumer, event_id, event_type, topic, key, seq, causation_id
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
    with ordinality as effect (consumer, event_id, event_type, topic, key, seq, causation_id, place)
  order by place`

/** Makes the tables of the shop, where they are not there yet. */
export async function createTables(sql: SqlExecutor): Promise<void> {
  for (const statement of STATEMENTS) await sql.query(statement)
}

/**
 * Writes the order's row. Its number among the orders of its key is drawn from the customer's row, which stays locked until the transaction ends,
 * so these numbers rise in the order of commits.
 */
export async function insertOrder(sql: SqlExecutor, invoice: Invoice): Promise<number> {
  const { rows } = await sql.query<{ seq: number }>(
    `with customer as (
       insert into demo_customer (key, seq) values ($1, 1)
       on conflict (key) do update set seq = demo_customer.seq + 1
       returning seq)
     insert into demo_order (invoice, key, seq) select $2, $1, seq from customer
     returning seq::int as seq`,
    [orderKeyOf(invoice), invoice.number],
  )
  return rows[0]!.seq
}

/** Numbers of the invoices that have their order's row: what was done before the process was killed. */
export async function publishedInvoices(sql: SqlExecutor): Promise<Set<string>> {
  const { rows } = await sql.query<{ invoice: string }>('select invoice from demo_order')
  return new Set(rows.map(({ invoice }) => invoice))
}

/** How many invoices have their order's row. */
export async function countOrders(sql: SqlExecutor): Promise<number> {
  const { rows } = await sql.query<{ count: number }>('select count(*)::int as count from demo_order')
  return rows[0]!.count
}

/** How many events the ledger has still to see of what was sold, those that the stock has still to raise not counted. */
export async function countUnseen(sql: SqlExecutor): Promise<number> {
  const { rows } = await sql.query<{ count: number }>(
    `select ((select count(*) from demo_order) + (select coalesce(sum(moves), 0) from demo_stock)
       - (select count(*) from demo_effect where consumer = 'ledger' and topic <> 'customer.CustomerRegistered'))::int as count`,
  )
  return rows[0]!.count
}

/** How many different things the consumers have done, and how many in all. */
export async function countEffects(sql: SqlExecutor): Promise<{ readonly effects: number; readonly different: number }> {
  const { rows } = await sql.query<{ effects: number; different: number }>(
    'select count(*)::int as effects, count(distinct (consumer, event_id))::int as different from demo_effect',
  )
  return rows[0]!
}

/** One code's stock after a change. */
export interface StockLevel {
  readonly code: string
  readonly quantity: number
  /** Its place among the changes of this code, drawn under the lock of the code's row. */
  readonly moves: number
}

/** Changes the stock of these codes, in the order given, and notes the effect: one statement, so each invoice costs one. */
export async function changeStock(
  sql: SqlExecutor,
  changes: readonly (readonly [code: string, quantity: number])[],
  effect: Effect,
): Promise<readonly StockLevel[]> {
  const { rows } = await sql.query<{ code: string; quantity: string; moves: number }>(
    `with effect as (${INSERT_EFFECTS}),
     changed as (
       insert into demo_stock (code, quantity, moves)
       select code, quantity, 1 from unnest($8::text[], $9::bigint[]) with ordinality as change (code, quantity, place) order by place
       on conflict (code) do update set quantity = demo_stock.quantity + excluded.quantity, moves = demo_stock.moves + 1
       returning code, quantity, moves)
     select code, quantity::text as quantity, moves::int as moves from changed`,
    [...effectColumns([effect]), changes.map(([code]) => code), changes.map(([, quantity]) => quantity)],
  )
  return rows.map(({ code, quantity, moves }) => ({ code, quantity: Number(quantity), moves }))
}

/** Adds to the revenue by country, and notes the effects. A country may come several times. */
export async function addRevenue(
  sql: SqlExecutor,
  sums: readonly (readonly [country: string, pence: number])[],
  effects: readonly Effect[],
): Promise<void> {
  await sql.query(
    `with effect as (${INSERT_EFFECTS})
     insert into demo_revenue (country, pence)
     select country, sum(pence) from unnest($8::text[], $9::bigint[]) as sale (country, pence) group by country order by country
     on conflict (country) do update set pence = demo_revenue.pence + excluded.pence`,
    [...effectColumns(effects), sums.map(([country]) => country), sums.map(([, pence]) => pence)],
  )
}

/** Notes effects, in the order given. */
export async function noteEffects(sql: SqlExecutor, effects: readonly Effect[]): Promise<void> {
  await sql.query(INSERT_EFFECTS, effectColumns(effects))
}

/** Everything the consumers did, in the order in which they did it. */
export async function readEffects(sql: SqlExecutor): Promise<readonly Effect[]> {
  const { rows } = await sql.query<Omit<Effect, 'causationId'> & { causationId: string | null }>(
    `select consumer, event_id as "eventId", event_type as "eventType", topic, key, seq::int as seq, causation_id as "causationId"
     from demo_effect order by id`,
  )
  return rows.map((row) => ({ ...row, causationId: row.causationId ?? undefined }))
}

/** The read models' totals. */
export async function readTotals(
  sql: SqlExecutor,
): Promise<{ readonly revenuePence: ReadonlyMap<string, number>; readonly stock: ReadonlyMap<string, number> }> {
  const revenue = await sql.query<{ name: string; total: string }>('select country as name, pence::text as total from demo_revenue')
  const stock = await sql.query<{ name: string; total: string }>('select code as name, quantity::text as total from demo_stock')
  const totals = ({ rows }: typeof revenue): ReadonlyMap<string, number> => new Map(rows.map(({ name, total }) => [name, Number(total)]))
  return { revenuePence: totals(revenue), stock: totals(stock) }
}

function effectColumns(effects: readonly Effect[]): readonly unknown[] {
  return [
    effects.map(({ consumer }) => consumer),
    effects.map(({ eventId }) => eventId),
    effects.map(({ eventType }) => eventType),
    effects.map(({ topic }) => topic),
    effects.map(({ key }) => key),
    effects.map(({ seq }) => seq),
    effects.map(({ causationId }) => causationId ?? null),
  ]
}
