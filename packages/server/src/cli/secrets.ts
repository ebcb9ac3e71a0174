import type { Environment } from './settings.ts'

const SECRET_MIN = 4
/** Settings of ours whose whole value is one; those of other programs are their own business. */
const SECRET_NAMES =
  /^(?:DATABASE|PG|KAFKA|NATS|REDIS|PULSAR|CLICKHOUSE|WAYBILL|BRIDGE)[A-Z0-9_]*(?:PASSWORD|PASSPHRASE|TOKEN|SECRET|SEED|NKEY|CREDENTIALS)$/
/** Settings of ours that are addresses, one or several with commas between. */
const ADDRESS_NAMES = /^(?:DATABASE|KAFKA|NATS|REDIS|PULSAR|CLICKHOUSE|WAYBILL|BRIDGE)_[A-Z0-9_]*(?:URL|URLS|SERVERS|NODES|SENTINELS|HOST)$/

/** What must never be shown of these settings: passwords and tokens, as written and as decoded. */
export function environmentSecrets(env: Environment): readonly string[] {
  const secrets = Object.entries(env).flatMap(([name, value]) => {
    if (value === undefined || value.trim() === '') return []
    if (ADDRESS_NAMES.test(name)) return secretsOf(value)
    return SECRET_NAMES.test(name) ? longEnough(value.trim()) : []
  })
  return [...new Set(secrets)]
}

/**
 * What must never be shown: the passwords of these URLs, as written and as decoded; of NATS, a token too. One that is too short to be looked for
 * everywhere is hidden where it stands in a URL. A value may hold several URLs, with commas between.
 */
export function secretsOf(...values: readonly (string | undefined)[]): readonly string[] {
  return values.flatMap((value) => {
    if (value === undefined) return []
    return value.split(/,(?=\s*[a-z][a-z0-9+.-]*:\/\/)/i).flatMap((part) => secretsOfUrl(part.trim()))
  })
}

/** A URL, or several, for people to see. */
export function maskUrl(url: string): string {
  return secretsOf(url).reduce((text, secret) => text.replaceAll(secret, '***'), url)
}

function secretsOfUrl(url: string): readonly string[] {
  // Of several hosts in one URL each may have its own.
  const others = [...url.matchAll(/(?:\/\/|,)[^:/?#,@\s]*:([^,@/\s]+)@/g)].map(([, password]) => password)
  const found = [passwordOf(url) ?? tokenOf(url), ...others].flatMap((password) =>
    password === undefined || password === '' ? [] : [password],
  )
  const forms = new Set(found.flatMap((password) => [password, decoded(password)]))
  return [...forms].flatMap((form) => (form.length >= SECRET_MIN ? [form] : [`:${form}@`, `password=${form}`]))
}

// A shorter one would be "hidden" all over the output, figures included.
function longEnough(secret: string): readonly string[] {
  return secret.length >= SECRET_MIN ? [secret] : []
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // Not percent-encoded after all.
  }
}

// By hand, so that a URL which can't be parsed does not show its password either.
function passwordOf(url: string): string | undefined {
  return /^[a-z][a-z0-9+.-]*:\/\/[^:/?#]*:(.*)@/is.exec(url)?.[1] ?? /[?&](?:password|token)=([^&#]*)/i.exec(url)?.[1]
}

// NATS takes what stands alone before the "@" for a token; elsewhere it is a user.
function tokenOf(url: string): string | undefined {
  return /^(?:nats|tls):\/\/([^:/?#@]*)@/i.exec(url)?.[1]
}
