import type { MessageEnvelope } from '../core/envelope.ts'

const TEXTS = [
  '',
  'a',
  'order-17',
  'Grüße',
  '日本語',
  '😀🇫🇷',
  '"quoted" \\ back',
  'line\nbreak\ttab\u0000',
  '</script>',
  '\u2028',
  'x'.repeat(300),
  '__proto__',
  'é\u0301',
  '\ud83d\ude00',
]
const KEYS = ['id', 'name', 'a b', 'ключ', '😀', '', '0', '10', 'constructor', 'toString', 'hasOwnProperty', 'a"b', 'a.b']
const NUMBERS = [
  0,
  1,
  -1,
  0.1,
  1e21,
  -1e-7,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  Number.MAX_VALUE,
  Number.MIN_VALUE,
  5e-324,
  1234567.891,
]

function pick<T>(random: () => number, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)]!
}

function randomJson(random: () => number, levels: number): unknown {
  const kind = random()
  if (levels === 0 || kind < 0.35) return pick(random, TEXTS)
  if (kind < 0.55) return random() < 0.5 ? pick(random, NUMBERS) : Math.floor(random() * 100_000) / 100
  if (kind < 0.65) return pick(random, [true, false, null])
  const length = Math.floor(random() * 5)
  if (kind < 0.8) return Array.from({ length }, () => randomJson(random, levels - 1))
  return Object.fromEntries(Array.from({ length }, () => [pick(random, KEYS), randomJson(random, levels - 1)]))
}

function hex(random: () => number, length: number): string {
  return Array.from({ length }, () => Math.floor(random() * 16).toString(16)).join('')
}

/** An envelope that every codec must carry: any JSON payload, any mix of optional attributes. */
export function randomEnvelope(random: () => number): MessageEnvelope {
  const maybe = <Name extends string, Value>(name: Name, value: () => Value): Partial<Record<Name, Value>> =>
    random() < 0.5 ? ({ [name]: value() } as Record<Name, Value>) : {}
  const text = (): string => pick(random, ['a', 'order-17', 'Größe 42', '客户', 'with "quotes" \\', 'c'.repeat(200)])
  return {
    event_id: `0190${hex(random, 4)}-${hex(random, 4)}-7${hex(random, 3)}-8${hex(random, 3)}-${hex(random, 12)}`,
    event_type: pick(random, ['order.OrderPlaced', 'Genesis.Session.Started', 'OrderCreated', 'a-b.c_d']),
    occurred_at: new Date(Math.floor(random() * 4_102_444_800_000)).toISOString(),
    source: text(),
    ...maybe('correlation_id', text),
    ...maybe('causation_id', text),
    version: pick(random, [1, 2, 0, '1.0', '2024-05']),
    ...maybe('aggregate_type', text),
    ...maybe('aggregate_id', text),
    ...maybe('aggregate_version', () => pick(random, [0, 1, 7, Number.MAX_SAFE_INTEGER])),
    ...maybe('bounded_context', text),
    ...maybe('trace_id', () => hex(random, 32)),
    ...maybe('metadata', () => ({ tenant: pick(random, TEXTS), user_id: text() })),
    payload: randomJson(random, 5),
  }
}
