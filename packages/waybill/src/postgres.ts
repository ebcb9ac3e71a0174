// The public face of "waybill/postgres".
export { pgliteStorage } from './adapters/postgres/pglite.ts'
export type { PGliteLike, PgliteStorageOptions } from './adapters/postgres/pglite.ts'
export { postgresStorage } from './adapters/postgres/pg.ts'
export type { PgClientLike, PgPoolLike, PostgresStorageOptions } from './adapters/postgres/pg.ts'
