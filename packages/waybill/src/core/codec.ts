import type { MessageEnvelope } from './envelope.ts'

/** Headers and body: what a transport carries. */
export interface EncodedEnvelope {
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

/**
 * Turns envelopes into bytes and back. Every codec round-trips every envelope that it accepts, or refuses it with the path of what it
 * can't carry; it never alters a value silently. The headers alone tell `event_id`, `event_type` and `content_type`, so routing needs no
 * body. May be wrapped (encryption), and may ask a registry, hence the promise.
 */
export interface Codec {
  /** What `content_type` says. */
  readonly contentType: string
  /** @throws WaybillError `NOT_SERIALIZABLE` | `PAYLOAD_TOO_LARGE` | `INVALID_HEADER` */
  encode(envelope: MessageEnvelope): EncodedEnvelope | Promise<EncodedEnvelope>
  /** Bytes from a wire are hostile: bounded in size and depth. @throws WaybillError `DECODE_FAILED` | `PAYLOAD_TOO_LARGE` */
  decode(encoded: EncodedEnvelope): MessageEnvelope | Promise<MessageEnvelope>
}
