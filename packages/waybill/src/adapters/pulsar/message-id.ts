import type { PulsarMessageIdLike, PulsarMessageIdsLike } from './pulsar-like.ts'

/** A place in a topic, as the admin interface tells it. */
export interface LedgerPlace {
  readonly ledgerId: bigint
  readonly entryId: bigint
}

export const EARLIEST: LedgerPlace = { ledgerId: -1n, entryId: -1n }

/** The bytes of Pulsar's `MessageIdData` (a protocol buffer): field 1 is the ledger, field 2 the entry. */
export function encodeMessageId({ ledgerId, entryId }: LedgerPlace): Buffer {
  return Buffer.from([0x08, ...varint(ledgerId), 0x10, ...varint(entryId)])
}

const LEDGER = 1n
const ENTRY = 2n
const BATCH_INDEX = 4n

/** Undefined where the bytes are none. `batchIndex`: -1 for what was not sent in a batch. */
export function decodeMessageId(bytes: Uint8Array): (LedgerPlace & { readonly batchIndex: bigint }) | undefined {
  const fields = new Map<bigint, bigint>()
  for (let at = 0; at < bytes.length;) {
    const tag = readVarint(bytes, at)
    // All fields that a broker sends are numbers.
    if (tag === undefined || (tag.value & 7n) !== 0n) return undefined
    const field = readVarint(bytes, tag.next)
    if (field === undefined) return undefined
    fields.set(tag.value >> 3n, BigInt.asIntN(64, field.value))
    at = field.next
  }
  const ledgerId = fields.get(LEDGER)
  const entryId = fields.get(ENTRY)
  return ledgerId === undefined || entryId === undefined ? undefined : { ledgerId, entryId, batchIndex: fields.get(BATCH_INDEX) ?? -1n }
}

const ENTRY_BITS = 28n
const BATCH_BITS = 20n

/** One number that rises with the place: more entries than 2^28 in a ledger, or messages than 2^20 in a batch, no broker takes. */
export function sequenceOf(bytes: Uint8Array): bigint | undefined {
  const place = decodeMessageId(bytes)
  if (place === undefined || place.ledgerId < 0n || place.entryId < 0n) return undefined
  const index = place.batchIndex < 0n ? 0n : place.batchIndex
  return (((place.ledgerId << ENTRY_BITS) | place.entryId) << BATCH_BITS) | index
}

function varint(value: bigint): number[] {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, value)
  do {
    const low = Number(rest & 0x7fn)
    rest >>= 7n
    bytes.push(rest === 0n ? low : low | 0x80)
  } while (rest !== 0n)
  return bytes
}

function readVarint(bytes: Uint8Array, from: number): { readonly value: bigint; readonly next: number } | undefined {
  let value = 0n
  for (let at = from, shift = 0n; at < bytes.length && shift < 70n; at++, shift += 7n) {
    const byte = bytes[at]!
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return { value: BigInt.asUintN(64, value), next: at + 1 }
  }
  return undefined
}

/** A message id of our own client: the broker's text, decoded only where somebody asks. */
export class WebSocketMessageId implements PulsarMessageIdLike {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  serialize(): Buffer {
    return Buffer.from(this.text, 'base64')
  }
}

/** Like the statics of the package's `MessageId`. */
export const webSocketMessageIds: PulsarMessageIdsLike = {
  earliest: () => new WebSocketMessageId('earliest'),
  deserialize: (data) => new WebSocketMessageId(data.toString('base64')),
}
