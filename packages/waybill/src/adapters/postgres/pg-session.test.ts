import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { test } from 'node:test'
import pg from 'pg'
import { isWaybillError } from '../../core/errors.ts'
import { type PgPoolLike, postgresStorage } from './pg.ts'

const packet = (type: string, body: Buffer): Buffer => {
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

const AUTHENTICATED = packet('R', Buffer.alloc(4))
const READY = packet('Z', Buffer.from('I'))
const TERMINATED = packet('E', Buffer.from('SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0'))

/** A server that begins each session and ends it in one packet, as the network may join the two. */
async function withHastyServer(run: (url: string) => Promise<void>): Promise<void> {
  const server = createServer((socket) => {
    socket.once('data', () => socket.end(Buffer.concat([AUTHENTICATED, READY, TERMINATED])))
    socket.on('error', () => {})
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    await run(`postgres://user:secret@127.0.0.1:${(server.address() as AddressInfo).port}/shop`)
  } finally {
    server.close()
  }
}

async function rejectsAll(target: string | PgPoolLike): Promise<void> {
  const storage = await postgresStorage(target)
  const isExplained = (error: unknown): boolean => isWaybillError(error, 'DATABASE_UNREACHABLE') && /terminating/.test(error.message)
  try {
    await assert.rejects(storage.database.query('select 1'), isExplained)
    await assert.rejects(
      storage.database.transaction(async () => {}),
      isExplained,
    )
  } finally {
    await storage.close()
  }
}

test('a session that is ended in the moment it begins rejects the statement that waits for it, and ends no process', () =>
  withHastyServer(rejectsAll))

test('so it is with a pool of your own', () =>
  withHastyServer(async (url) => {
    const pool = new pg.Pool({ connectionString: url })
    pool.on('error', () => {})
    await rejectsAll(pool)
    await pool.end()
  }))
