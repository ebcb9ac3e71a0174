import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { NAME_MAX } from '../../core/names.ts'
import { assignPartitions } from './assigner.ts'
import { createErrors, mayHaveBeenSent } from './errors.ts'
import { murmur2, partitionOf } from './murmur2.ts'
import { kafkaTopicName, topicOfKafkaName } from './names.ts'
import { checkKafkaOptions } from './options.ts'
import { storedPartitions } from './produced.ts'
import { kafkaSettings } from './settings.ts'
import { fromRecord, toRecord } from './wire.ts'
import { isWaybillError } from '../../core/errors.ts'

suite('Kafka, without a broker', () => {
  test('keys hash as in Java: the vectors of its own test', () => {
    const vectors: readonly (readonly [string, number])[] = [
      ['21', -973_932_308],
      ['foobar', -790_332_482],
      ['a-little-bit-long-string', -985_981_536],
      ['a-little-bit-longer-string', -1_486_304_829],
      ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58_897_971],
      ['abc', 479_470_107],
    ]
    for (const [text, hash] of vectors) assert.equal(murmur2(Buffer.from(text)), hash, text)
  })

  test('a partition is always one of those there are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.integer({ min: 1, max: 1000 }), (key, partitions) => {
        const partition = partitionOf(key, partitions)
        assert.ok(partition >= 0 && partition < partitions && Number.isInteger(partition))
      }),
    )
  })

  test('topics keep their names, both ways, and what is none of ours is told apart', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,20}$/)
    const names = fc.array(segment, { minLength: 1, maxLength: 6 }).map((segments) => segments.join('.'))
    fc.assert(
      fc.property(names, (name) => {
        fc.pre(name.length <= NAME_MAX && !/-partition-\d+$/.test(name))
        assert.equal(topicOfKafkaName(kafkaTopicName(name)), name)
      }),
    )
    for (const foreign of ['__consumer_offsets', '_schemas', 'a..b', 'x'.repeat(249)]) assert.equal(topicOfKafkaName(foreign), undefined)
  })

  test('a message is the same after the wire, with an id that its headers do not tell, and without', () => {
    for (const headers of [{}, { event_id: 'other' }, { event_id: 'id-1', 'x-a': 'ü 🦊', 'x-b': '' }]) {
      const { record, bytes } = toRecord({ id: 'id-1', topic: 'a.B', key: 'clé', headers, body: Uint8Array.of(0, 255) }, 'a.B')
      const message = fromRecord('a.B', 1, 7n, { offsetDelta: 0, key: record.key, value: record.value, headers: [...record.headers] })
      assert.deepEqual({ ...message, body: [...message.body] }, { id: 'id-1', topic: 'a.B', key: 'clé', headers, body: [0, 255] })
      assert.ok(bytes > record.key.length + record.value.length)
    }
  })

  test('each message has its own headers, whatever those before it had under the same names', () => {
    const header = fc.constantFrom('a', 'b', 'ü', '')
    fc.assert(
      fc.property(fc.array(fc.record({ 'x-a': header, 'x-b': header }, { requiredKeys: [] })), (all) => {
        const records = all.map((headers) => toRecord({ id: '1', topic: 't', key: 'k', headers, body: Buffer.of(1) }, 't').record)
        const arrived = records.map(({ headers }) => {
          const record = { offsetDelta: 0, key: null, value: null, headers: [...headers] }
          return fromRecord('t', 0, 0n, record).headers
        })
        assert.deepEqual(
          arrived,
          all.map((headers) => ({ ...headers })),
        )
      }),
    )
  })

  test('a record that another system wrote arrives: its place is its id, and its body is untouched', () => {
    const message = fromRecord('a', 2, 9n, { offsetDelta: 0, key: Buffer.of(0xff), value: null, headers: [[Buffer.from('h'), null]] })
    assert.deepEqual(
      { ...message, body: message.body.byteLength },
      { id: 'kafka:a:2:9', topic: 'a', key: 'kafka:a:2:9', headers: {}, body: 0 },
    )
  })

  test('each topic goes to the members that asked for it, evenly', () => {
    const topic = (partitionsCount: number) => ({ id: 'x', partitionsCount, partitions: [] })
    const members = new Map([
      ['m1', { memberId: 'm1', topics: ['a', 'b'] }],
      ['m2', { memberId: 'm2', topics: ['a'] }],
    ])
    const metadata = {
      topics: new Map([
        ['a', topic(3)],
        ['b', topic(2)],
      ]),
      brokers: new Map(),
    }
    const shares = assignPartitions('m1', members, new Set(['a']), metadata)
    const flat = Object.fromEntries(shares.map(({ memberId, assignments }) => [memberId, [...assignments.values()]]))
    assert.deepEqual(flat, {
      m1: [
        { topic: 'a', partitions: [0, 2] },
        { topic: 'b', partitions: [0, 1] },
      ],
      m2: [{ topic: 'a', partitions: [1] }],
    })
  })

  test('of a request that failed, partitions that a broker stored are told from those that it refused, and from those nobody knows of', () => {
    const refused = Object.assign(new Error('too large'), { path: '/responses/0/partition_responses/1', apiId: 'MESSAGE_TOO_LARGE' })
    const response = {
      responses: [
        {
          name: 't',
          partitionResponses: [
            { index: 4, errorCode: 0 },
            { index: 5, errorCode: 10 },
            { index: 6, errorCode: 46 },
          ],
        },
      ],
    }
    const answered = Object.assign(new AggregateError([refused], 'Received response with error'), { response })
    const lost = new AggregateError([new Error('Connection closed'), new Error('Connection closed')], 'produce failed 2 times.')
    const whole = Object.assign(new AggregateError([answered, lost], 'Producing messages failed.'), {
      produced: { offsets: [{ topic: 'u', partition: 0, offset: 3n }] },
    })
    const { stored, refused: refusals, isDefinite } = storedPartitions(whole)
    assert.deepEqual([...stored].toSorted(), ['t\n4', 't\n6', 'u\n0'])
    assert.deepEqual([...refusals], [['t\n5', refused]])
    assert.equal(isDefinite, false)
    assert.equal(mayHaveBeenSent(whole), true)
  })

  test('a connection that was never made sent nothing', () => {
    const refused = Object.assign(new Error('Connection to h:1 failed.'), {
      code: 'PLT_KFK_NETWORK',
      cause: Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }),
    })
    const whole = new AggregateError([new AggregateError([refused, refused], 'produce failed 2 times.')], 'Producing messages failed.')
    assert.equal(mayHaveBeenSent(whole), false)
    const error = createErrors('h:1', false)(whole, 'publishing')
    assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(error.message, /h:1/)
  })

  test('options that can not be meant are refused, and secrets are not shown', () => {
    const right = { bootstrapServers: ['localhost:9092'] }
    const wrong: readonly object[] = [
      {},
      { bootstrapServers: [] },
      { bootstrapServers: ['kafka://user:hunter2@host:9092'] },
      { bootstrapServers: ['host'] },
      { bootstrapServers: ['host:0'] },
      { bootstrapServers: ['host:65536'] },
      { ...right, clientId: 'a b' },
      { ...right, sasl: { mechanism: 'GSSAPI', username: 'u', password: 'hunter2' } },
      { ...right, sasl: { mechanism: 'PLAIN', username: 'u', password: '' } },
      { ...right, tls: { ca: '/etc/ca.pem' } },
      { ...right, tls: { cert: '-----BEGIN CERTIFICATE-----' } },
      { ...right, partitions: 0 },
      { ...right, replicationFactor: 101 },
      { ...right, messageMaxBytes: 0 },
      { ...right, requestTimeoutMs: 1 },
      { ...right, closeTimeoutMs: Number.NaN },
      { ...right, sessionTimeoutMs: 10 },
      { ...right, createTopics: 'no' },
      { ...right, observe: 1 },
      { ...right, brokrs: ['localhost:9092'] },
      { ...right, tls: { caPath: '/etc/ca.pem' } },
      { ...right, sasl: { mechanism: 'PLAIN', username: 'u', password: 'hunter2', realm: 'x' } },
    ]
    for (const options of wrong) {
      assert.throws(
        () => checkKafkaOptions(options as never),
        (error: unknown) => isWaybillError(error, 'INVALID_OPTION') && !error.message.includes('hunter2'),
        JSON.stringify(options),
      )
    }
    assert.equal(checkKafkaOptions(right).partitions, 12)
  })

  test('settings of the environment become options', () => {
    const env = {
      KAFKA_BOOTSTRAP_SERVERS: 'a:9092, b:9092',
      KAFKA_CLIENT_ID: 'orders',
      KAFKA_SASL_MECHANISM: 'scram-sha-512',
      KAFKA_SASL_USERNAME: 'u',
      KAFKA_SASL_PASSWORD: 'p',
      KAFKA_TLS_ENABLED: 'yes',
      KAFKA_TLS_VALIDATE_HOSTNAME: 'false',
      KAFKA_TOPIC_PARTITIONS: '6',
      KAFKA_REPLICATION_FACTOR: '3',
      KAFKA_CREATE_TOPICS: 'no',
      KAFKA_MESSAGE_MAX_BYTES: '1000',
      KAFKA_REQUEST_TIMEOUT_MS: '2000',
      KAFKA_CLOSE_TIMEOUT_MS: '3000',
      KAFKA_SESSION_TIMEOUT_MS: '6000',
    }
    assert.deepEqual(kafkaSettings(env), {
      bootstrapServers: ['a:9092', 'b:9092'],
      clientId: 'orders',
      sasl: { mechanism: 'SCRAM-SHA-512', username: 'u', password: 'p' },
      tls: { validateHostname: false },
      partitions: 6,
      replicationFactor: 3,
      createTopics: false,
      messageMaxBytes: 1000,
      requestTimeoutMs: 2000,
      closeTimeoutMs: 3000,
      sessionTimeoutMs: 6000,
    })
    assert.deepEqual(kafkaSettings({ KAFKA_BOOTSTRAP_SERVERS: 'a:9092' }), { bootstrapServers: ['a:9092'] })
    const server = { KAFKA_BOOTSTRAP_SERVERS: 'a:9092' }
    assert.throws(() => kafkaSettings({}), { code: 'INVALID_SETTING' })
    assert.throws(() => kafkaSettings({ ...server, KAFKA_SASL_MECHANISM: 'GSSAPI' }), { code: 'INVALID_SETTING' })
    assert.throws(() => kafkaSettings({ ...server, KAFKA_SASL_MECHANISM: 'PLAIN' }), { code: 'INVALID_SETTING' })
    assert.throws(
      () => kafkaSettings({ ...server, KAFKA_SASL_PASSWORD: 'hunter2' }),
      (error: unknown) => isWaybillError(error, 'INVALID_SETTING') && !error.message.includes('hunter2'),
    )
    assert.throws(() => kafkaSettings({ ...server, KAFKA_TOPIC_PARTITIONS: 'many' }), { code: 'INVALID_SETTING' })
    assert.throws(() => kafkaSettings({ ...server, KAFKA_TLS_CA_PATH: '/no/such/file' }), { code: 'INVALID_FILE' })
  })
})
