/** What the server says of a message in its reply subject. */
export interface Place {
  /** In the stream. */
  readonly sequence: number
  /** How many messages the consumer has sent, this one included. */
  readonly delivery: number
  /** Messages that follow. */
  readonly pending: number
}

const DOT = 0x2e
const ZERO = 0x30

/**
 * Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<delivery>.<time>.<pending>`; with a domain and an account after `ACK` it ends in one token
 * more. `consumer` stands between dots, and is in no other token: what follows it is the same in both. Undefined for any other subject. By hand, since it
 * is read for every message.
 */
export function placeOf(subject: string, consumer: string): Place | undefined {
  const before = subject.indexOf(consumer)
  if (before === -1) return undefined
  const deliveries = before + consumer.length
  const sequence = tokenAfter(subject, deliveries)
  const delivery = tokenAfter(subject, sequence)
  const pending = tokenAfter(subject, tokenAfter(subject, delivery))
  const place = { sequence: digitsAt(subject, sequence), delivery: digitsAt(subject, delivery), pending: digitsAt(subject, pending) }
  return place.sequence >= 0 && place.delivery >= 0 && place.pending >= 0 ? place : undefined
}

/** Where the token after the one at `at` begins; where there is none, the end. */
function tokenAfter(subject: string, at: number): number {
  const dot = subject.indexOf('.', at)
  return dot === -1 ? subject.length : dot + 1
}

/** The number that the token at `at` is; -1 where it is none. */
function digitsAt(subject: string, at: number): number {
  let number = 0
  let end = at
  for (; end < subject.length; end++) {
    const code = subject.charCodeAt(end)
    if (code === DOT) break
    const digit = code - ZERO
    if (digit < 0 || digit > 9) return -1
    number = number * 10 + digit
  }
  return end === at ? -1 : number
}
