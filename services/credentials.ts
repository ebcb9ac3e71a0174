import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from './command.ts'

/** A user who may do everything, and one who may do nothing (Redis: read keys that begin with `limited:`). New for each server. */
export interface Users {
  readonly user: string
  readonly password: string
  readonly limitedUser: string
  readonly limitedPassword: string
}

/** Users with passwords that nobody has had before. */
export const newUsers = (): Users => ({
  user: 'waybill',
  password: newSecret(),
  limitedUser: 'limited',
  limitedPassword: newSecret(),
})

/** Letters and digits only, so that it needs no quotes in any configuration. */
export const newSecret = (): string => randomBytes(16).toString('hex')

/** Files of a server's certificate, and of the authority that has signed it. */
export interface Certificate extends Readonly<Record<string, string>> {
  readonly caFile: string
  readonly certFile: string
  readonly keyFile: string
}

const DAYS = '3'

/** A certificate for 127.0.0.1 and localhost, of an authority that exists in `folder` only. Needs the `openssl` command. */
export async function makeCertificate(folder: string): Promise<Certificate> {
  const place = join(folder, 'tls')
  await mkdir(place)
  const file = (name: string) => join(place, name)
  const openssl = (...args: readonly string[]) => runCommand('openssl', args)
  const key = ['-newkey', 'rsa:2048', '-nodes', '-sha256']
  await writeFile(
    file('server.ext'),
    'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n',
  )
  await openssl('req', '-x509', ...key, '-days', DAYS, '-subj', '/CN=waybill-test-ca', '-keyout', file('ca.key'), '-out', file('ca.pem'))
  await openssl('req', ...key, '-subj', '/CN=localhost', '-keyout', file('server.key'), '-out', file('server.csr'))
  const signing = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial', '-extfile', file('server.ext')]
  await openssl('x509', '-req', '-sha256', '-days', DAYS, '-in', file('server.csr'), ...signing, '-out', file('server.pem'))
  return { caFile: file('ca.pem'), certFile: file('server.pem'), keyFile: file('server.key') }
}

/** A JSON web token of HS256 for `subject`, without an end. */
export function signToken(subject: string, secret: Buffer): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const text = `${part({ alg: 'HS256' })}.${part({ sub: subject })}`
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`
}

/** A NATS key of a user: the seed is what the user keeps, the public key what the server knows. */
export function newNkey(): { readonly seed: string; readonly publicKey: string } {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  if (d === undefined || x === undefined) throw new Error('no Ed25519 key')
  // A seed begins with the bits of "seed" and "user", a public key with those of "user".
  return {
    seed: encodeKey(Buffer.from([SEED | (USER >> 5), (USER & 31) << 3]), Buffer.from(d, 'base64url')),
    publicKey: encodeKey(Buffer.from([USER]), Buffer.from(x, 'base64url')),
  }
}

const SEED = 18 << 3
const USER = 20 << 3
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

function encodeKey(prefix: Buffer, key: Buffer): string {
  const body = Buffer.concat([prefix, key])
  const sum = Buffer.alloc(2)
  sum.writeUInt16LE(crc16(body))
  const bits = [...body, ...sum].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  return (bits.match(/.{1,5}/g) ?? []).map((five) => BASE32[Number.parseInt(five.padEnd(5, '0'), 2)]).join('')
}

/** CRC-16/XMODEM. */
function crc16(bytes: Buffer): number {
  let crc = 0
  for (const byte of bytes) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = ((crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021) & 0xffff
  }
  return crc
}
