import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import client from 'prom-client'
import { prometheusMetrics } from './prometheus-metrics.ts'

const DOC = new URL('../../../../../docs/metrics.md', import.meta.url)

/** `name type labels` of each metric, as the tables of the page say. */
function documented(): readonly string[] {
  const rows = readFileSync(DOC, 'utf8').matchAll(/^\| `(waybill_\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \| [^|]+ \|$/gm)
  return [...rows].map(
    ([, name, type, labels = '']) => `${name} ${type} ${[...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label).join()}`,
  )
}

/** The same, as they are registered. */
async function registered(): Promise<readonly string[]> {
  const register = new client.Registry()
  await prometheusMetrics({ client, register })
  const types = new Map((await register.getMetricsAsJSON()).map(({ name, type }) => [name, String(type)]))
  return register.getMetricsAsArray().map((metric) => {
    const { labelNames } = metric as { readonly labelNames?: readonly string[] }
    return `${metric.name} ${types.get(metric.name)} ${(labelNames ?? []).join()}`
  })
}

test('docs/metrics.md lists the metrics that there are, with type and labels, and no others', async () => {
  const found = await registered()
  assert.ok(found.length > 20)
  assert.deepEqual(documented().toSorted(), found.toSorted())
})

test('docs/metrics.md names no metric that is not there', async () => {
  const names = new Set((await registered()).map((line) => line.split(' ', 1)[0]))
  for (const [name] of readFileSync(DOC, 'utf8').matchAll(/\bwaybill_[a-z_]+\b/g)) assert.ok(names.has(name), name)
})
