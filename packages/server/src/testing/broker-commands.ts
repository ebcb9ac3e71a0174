import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, test } from 'node:test'
import { transportFromEnvironment } from 'waybill'
import type { ServiceAvailable, ServiceSkipped } from 'waybill-services'
import type { BrokerType } from '../cli/broker.ts'
import type { Finding } from '../doctor/finding.ts'
import { startCommand } from './command-process.ts'
import { eventMessage } from './memory-module.ts'
import { until } from './relay-process.ts'

export interface BrokerCommandsOptions {
  readonly type: BrokerType
  readonly server: ServiceAvailable | ServiceSkipped
  /** The settings by which the commands find it. */
  readonly settings: (server: ServiceAvailable) => Readonly<Record<string, string>>
  /** What the doctor calls it. */
  readonly product: RegExp
}

interface Listed {
  readonly transport: string
  readonly topics: readonly {
    readonly topic: string
    readonly brokerName: string
    readonly partitions: number
    readonly messages: number | null
    readonly groups: readonly { readonly group: string; readonly members: number | null; readonly lag: number | null }[]
  }[]
}

interface Tailed {
  readonly topic: string
  readonly partition: string
  readonly sequence: string | null
  readonly id: string
  readonly key: string
  readonly headers: Readonly<Record<string, string>>
  readonly envelope: { readonly payload: { readonly n: number } }
}

const GROUP = 'desk/read'
const PUBLISH_MAX_MS = 60_000

/** Shows that topics, tail and doctor work on a real server, as processes of their own. */
export function brokerCommands({ type, server, settings, product }: BrokerCommandsOptions): void {
  const skip = 'skipped' in server && server.skipped
  const env = 'skipped' in server ? {} : { MESSAGE_BUS_TYPE: type, ...settings(server) }
  const topic = `cmd${randomBytes(5).toString('hex')}.Sold`
  const transport = skip === false ? transportFromEnvironment(env) : undefined
  after(async () => (await transport)?.close())

  const message = (n: number) => eventMessage(topic, `k${n % 3}`, { n }, { event_id: `${topic}-${n}` })
  async function publish(from: number, to: number): Promise<void> {
    const messages = Array.from({ length: to - from }, (_, at) => message(from + at))
    const outcomes = await (await transport!).publish(messages, AbortSignal.timeout(PUBLISH_MAX_MS))
    assert.deepEqual(new Set(outcomes.map(({ kind }) => kind)), new Set(['stored']), JSON.stringify(outcomes))
  }
  const run = (...args: readonly string[]) => startCommand(args, { env }).ended
  const tailed = (stdout: string): readonly Tailed[] =>
    stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Tailed)
  async function listed(): Promise<Listed['topics'][number]> {
    const { code, stdout, stderr } = await run('topics', topic, '--json')
    assert.equal(code, 0, stderr)
    const { transport: name, topics } = JSON.parse(stdout) as Listed
    assert.deepEqual([name, topics.map((each) => each.topic)], [type, [topic]])
    return topics[0]!
  }

  void test(`${type}: topics tells what is held, and what a group has not settled`, { skip }, async () => {
    const missing = await run('topics', topic)
    assert.deepEqual([missing.code, missing.stdout], [1, ''], missing.stderr)
    assert.match(missing.stderr, /^waybill: there is no topic (\S+) \(got "\1"; at [^()]+\) \[TOPIC_MISSING\]\n$/)
    assert.ok(missing.stderr.includes(topic))
    await (await transport!).declareGroups([{ topic, group: GROUP }])
    await publish(0, 10)
    await settleAll(10)
    await publish(10, 15)
    let report = await listed()
    await until('the figures to be those of what happened', async () => {
      report = await listed()
      const group = report.groups.find((each) => each.group === GROUP)
      return group?.lag === 5 && (report.messages === null || report.messages === 15)
    })
    assert.ok(report.partitions >= 1 && report.brokerName.length > 0)
    assert.equal(report.groups.length, 1)
    const all = await run('topics')
    assert.equal(all.code, 0, all.stderr)
    assert.match(all.stdout, new RegExp(`^${topic.replace('.', '\\.')} .* ${GROUP} `, 'm'))
  })

  /** A member of the group that leaves when it has settled so many. */
  async function settleAll(count: number): Promise<void> {
    const done = new AbortController()
    let settled = 0
    for await (const deliveries of (await transport!).subscribe({ topics: [topic], group: GROUP }, done.signal)) {
      for (const delivery of deliveries) await delivery.ack()
      settled += deliveries.length
      if (settled >= count) done.abort()
    }
  }

  void test(`${type}: tail shows all that is there, each once, each key in its order, and settles nothing`, { skip }, async () => {
    const { code, stdout, stderr } = await run('tail', topic, '--from', 'earliest', '--count', '15', '--json')
    assert.equal(code, 0, stderr)
    const seen = tailed(stdout)
    assert.deepEqual(
      seen.map(({ envelope }) => envelope.payload.n).toSorted((a, b) => a - b),
      Array.from({ length: 15 }, (_, n) => n),
    )
    for (const [key, ofKey] of Map.groupBy(seen, (each) => each.key)) {
      const numbers = ofKey.map(({ envelope }) => envelope.payload.n)
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
        key,
      )
    }
    assert.deepEqual([seen[0]!.topic, seen[0]!.headers['event_type'], typeof seen[0]!.partition], [topic, topic, 'string'])
    const filtered = await run(
      'tail',
      topic,
      '--from',
      'earliest',
      '--count',
      '2',
      '--json',
      '--where',
      'payload.n=7',
      '--where',
      `event_type=${topic}`,
      '--count=1',
    )
    assert.equal(filtered.code, 2, 'an option that is given twice')
    const one = await run('tail', topic, '--from', 'earliest', '--count', '1', '--json', '--where', 'payload.n=7')
    assert.deepEqual(
      tailed(one.stdout).map(({ id }) => id),
      [`${topic}-7`],
      one.stderr,
    )
    const { groups } = await listed()
    assert.deepEqual(
      groups.map(({ group, lag }) => [group, lag]),
      [[GROUP, 5]],
    )
  })

  void test(`${type}: tail shows what comes, from the latest on and from a time on`, { skip }, async () => {
    const tail = startCommand(['tail', topic, '--count', '1', '--json'], { env })
    let next = 100
    // When it has begun nobody knows, so one after the other until it has seen one.
    await until('it to see one', async () => {
      if (tail.isRunning()) await publish(next, ++next)
      return !tail.isRunning()
    })
    const { code, stdout, stderr } = await tail.ended
    assert.equal(code, 0, stderr)
    assert.ok(tailed(stdout)[0]!.envelope.payload.n >= 100)
    const { capabilities } = await transport!
    const late = await run('tail', topic, '--from', '1h', '--count', '15', '--json')
    if (capabilities.startsAtTime === true) assert.equal(tailed(late.stdout).length, 15, late.stderr)
    else assert.deepEqual([late.code, /cannot begin at a time/.test(late.stderr)], [2, true])
    const stopped = startCommand(['tail', topic, '--from', 'earliest', '--json'], { env })
    await until('fifteen lines', () => stopped.stdout().split('\n').length > 15)
    stopped.kill('SIGINT')
    const { code: exit, signal } = await stopped.ended
    assert.deepEqual([exit, signal], [0, null])
  })

  void test(`${type}: the doctor says what the broker is, and looks at nothing else where there is no database`, { skip }, async () => {
    const { code, stdout, stderr } = await run('doctor', '--json')
    const { healthy, errors, findings } = JSON.parse(stdout) as { healthy: boolean; errors: number; findings: readonly Finding[] }
    assert.deepEqual([code, healthy], errors === 0 ? [0, true] : [1, false], stderr)
    assert.match(findings.find(({ check, level }) => check === 'broker' && level === 'ok')!.found, product)
    for (const { level, advice, found } of findings) if (level !== 'ok') assert.ok(advice, `nothing to do: ${found}`)
    assert.deepEqual(new Set(findings.map(({ check }) => check)), new Set(['database', 'broker', 'broker settings']))
  })
}
