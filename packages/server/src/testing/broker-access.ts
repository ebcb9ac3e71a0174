import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { OwnServer, ServiceSkipped } from 'waybill-services'
import type { BrokerType } from '../cli/broker.ts'
import type { Finding } from '../doctor/finding.ts'
import { startCommand } from './command-process.ts'

export interface BrokerAccessOptions {
  /** Whether looking at the broker is enough to hear that it refuses the credentials, so that a relay does not even begin. */
  readonly refusesEarly?: boolean
  readonly type: BrokerType
  /** One that asks for credentials. */
  readonly server: OwnServer | ServiceSkipped
  /** Settings that get in. */
  readonly right: (server: OwnServer) => Readonly<Record<string, string>>
  /** Settings with a wrong password or token; it stands in `secret`. */
  readonly wrong: (server: OwnServer, secret: string) => Readonly<Record<string, string>>
}

/** Shows what the commands say of a broker that asks for credentials. */
export function brokerAccess({ type, server, right, wrong, refusesEarly = false }: BrokerAccessOptions): void {
  const skip = 'skipped' in server && server.skipped
  const secret = 'not-the-right-secret'
  after(async () => {
    if (!('skipped' in server)) await server.close()
  })
  const run = (settings: Readonly<Record<string, string>>, ...args: readonly string[]) =>
    startCommand(args, { env: { MESSAGE_BUS_TYPE: type, ...settings } }).ended

  void test(`${type}: with the right credentials the commands get in, and no password is shown`, { skip }, async () => {
    if ('skipped' in server) return
    const { code, stdout, stderr } = await run(right(server), 'doctor')
    assert.match(stdout, /^ok +broker +\S+ /m, stderr)
    assert.ok(code === 0 || code === 1)
    assert.equal((await run(right(server), 'topics', '--json')).code, 0)
    for (const hidden of [server.extra['password'], server.extra['token']])
      assert.ok(hidden === undefined || !(stdout + stderr).includes(hidden))
  })

  void test(
    `${type}: wrong credentials are told from a broker that is away, by every command, without showing them`,
    { skip },
    async () => {
      if ('skipped' in server) return
      for (const args of [['topics'], ['tail', 'a.B', '--count', '1', '--from', 'earliest']]) {
        const { code, stdout, stderr } = await run(wrong(server, secret), ...args)
        assert.deepEqual([code, stdout], [1, ''], stderr)
        assert.match(stderr, /\[ACCESS_DENIED\]\n$/)
        assert.ok(!stderr.includes(secret), stderr)
      }
      const { code, stdout, stderr } = await run(wrong(server, secret), 'doctor', '--json')
      const { findings } = JSON.parse(stdout) as { findings: readonly Finding[] }
      const found = findings.find(({ level }) => level === 'error')
      assert.deepEqual([code, found?.check], [1, 'broker'])
      assert.match(found!.advice!, /^correct user, password or token/)
      assert.ok(!(stdout + stderr).includes(secret))
    },
  )

  if (!refusesEarly) return
  void test(`${type}: a relay whose credentials are refused does not begin, and spends no attempt of any row`, { skip }, async () => {
    if ('skipped' in server) return
    // Nobody listens there: it ends before it has asked the database.
    const env = { DATABASE_URL: 'postgres://127.0.0.1:1/x', LOG_LEVEL: 'error' }
    const { code, stdout, stderr } = await run({ ...wrong(server, secret), ...env }, 'relay', '--once')
    assert.deepEqual([code, stdout], [1, ''], stderr)
    assert.match(stderr, /\[ACCESS_DENIED\]\n$/)
    assert.ok(!stderr.includes(secret), stderr)
  })
}
