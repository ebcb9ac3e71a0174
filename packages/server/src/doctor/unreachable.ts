import { isWaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'
import type { Finding } from './finding.ts'

/** What the server, or the way to it, says; and what to do then. */
const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/password authentication failed|SASL|no password supplied/i, 'correct user and password in DATABASE_URL'],
  [/role .* does not exist/i, 'correct the user in DATABASE_URL; or make it, as an administrator: create role ... login'],
  [/database .* does not exist/i, 'correct the database in DATABASE_URL; or make it, as an administrator: create database ...'],
  [/ECONNREFUSED/, 'start the server; or correct host and port in DATABASE_URL'],
  [/ENOTFOUND|EAI_AGAIN/, 'correct the host in DATABASE_URL'],
  [
    /ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|in time|timeout/i,
    'correct host and port in DATABASE_URL; or let this machine through the firewall',
  ],
  [/pg_hba|no encryption|SSL/i, 'let this machine in, by pg_hba.conf and by sslmode in DATABASE_URL'],
  [/too many clients|remaining connection slots|no connection became free/i, 'end sessions that nobody needs; or raise max_connections'],
  [/starting up|shutting down|recovery/i, 'wait until the server has started'],
]

const NO_IDEA = 'check host, port, database, user and password in DATABASE_URL; see that the server runs and lets this machine in'

/** Why nothing can be looked at. `given`: by what name the database was. */
export function unreachable(error: unknown, given: string): Finding {
  const finding = { check: 'database', level: 'error' } as const
  if (isWaybillError(error, 'DATABASE_IN_USE'))
    return { ...finding, found: messageOf(error), advice: 'a PGlite folder has one owner: stop that process first' }
  // Without what is allowed: that is what the advice says better.
  const [found = ''] = messageOf(error).split('; allowed: ')
  const advice = CAUSES.find(([pattern]) => pattern.test(found))?.[1]
  return {
    ...finding,
    found: found.replace(/ \(got "(.*)"\)?$/, ' ($1)'),
    advice: (advice ?? NO_IDEA).replaceAll('DATABASE_URL', given),
  }
}
