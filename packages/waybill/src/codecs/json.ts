import type { Codec, EncodedEnvelope } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { checkInteger } from '../core/options.ts'
import { checkExtraHeaders } from './attributes.ts'
import { decodeJson } from './json-decode.ts'
import { createJsonEncoder } from './json-encode.ts'
import { JSON_CONTENT_TYPE } from './json-value.ts'

/** Options of {@link jsonCodec}. */
export interface JsonCodecOptions {
  /** Largest body, in bytes, both ways; 1 KiB to 64 MiB. @default 1048576 (1 MiB) */
  readonly maxBytes?: number
  /** Most levels of arrays and objects in a payload, both ways; 1 to 256. @default 64 */
  readonly maxDepth?: number
  /** Put on every message beside the envelope's own headers. Names of attributes are reserved. @default none */
  readonly headers?: Readonly<Record<string, string>>
}

/** A {@link Codec} that needs no promises. */
export interface JsonCodec extends Codec {
  encode(envelope: MessageEnvelope): EncodedEnvelope
  decode(encoded: EncodedEnvelope): MessageEnvelope
}

const MIB = 1024 * 1024

/**
 * The default codec: one JSON object with the names of {@link MessageEnvelope}, in UTF-8.
 *
 * - Headers: `event_id`, `event_type`, `content_type`; `traceparent` where the trace id is a W3C one (its span id is made from the event id); and
 *   all other attributes that are set, except `metadata`, which stands in the body only.
 * - Whatever would not come back equal is refused with its path: NaN, Infinity, -0, BigInt, functions, symbols, `undefined` in arrays, holes, class
 *   instances (also `Date`, `Map`, typed arrays), cycles, lone surrogates, a `__proto__` key, more than `maxDepth` levels. A property that is
 *   `undefined` counts as absent, an object without prototype as a plain one. What `Object.keys` doesn't list (symbol keys, hidden properties,
 *   properties of arrays beside their items) is not part of a value.
 * - From the wire: fields we don't know are ignored, an optional one that is null counts as absent, and of a repeated name the last one counts.
 *   Numbers are doubles, so whole ones beyond 2^53 lose digits: send those as text. `event_id` and `event_type` must be the same in headers and body, where both have them.
 *
 * @throws WaybillError `INVALID_OPTION` | `INVALID_HEADER`
 */
export function jsonCodec(options: JsonCodecOptions = {}): JsonCodec {
  const maxBytes = checkInteger(options.maxBytes ?? MIB, 'maxBytes', 1024, 64 * MIB)
  const maxDepth = checkInteger(options.maxDepth ?? 64, 'maxDepth', 1, 256)
  const extra = Object.freeze({ ...options.headers })
  checkExtraHeaders(extra, 'headers of jsonCodec')
  return {
    contentType: JSON_CONTENT_TYPE,
    encode: createJsonEncoder(maxBytes, maxDepth, extra),
    decode: (encoded) => decodeJson(encoded, maxBytes, maxDepth),
  }
}
