/** Runs statements in a session or a transaction that somebody else owns. */
export interface SqlExecutor {
  /** One statement with `$1`-style parameters. Rows are objects by column name. */
  query<Row = Record<string, unknown>>(text: string, params?: readonly unknown[]): Promise<{ readonly rows: readonly Row[] }>
}

/** A database that owns its sessions. */
export interface Database extends SqlExecutor {
  /**
   * Runs `fn` in a transaction of its own: commits when it resolves, rolls back when it rejects, and rejects with the same error.
   * Inside `fn` only the executor given counts; another call of this database from within waits for itself on an embedded database and
   * is refused there with `SESSION_BUSY`.
   * @throws WaybillError `UNKNOWN_OUTCOME` where the connection was cut after COMMIT was sent; `DATABASE_UNREACHABLE`
   */
  transaction<T>(fn: (sql: SqlExecutor) => Promise<T>): Promise<T>
}
