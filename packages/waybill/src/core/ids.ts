import { randomFillSync } from 'node:crypto'
import { burstNow } from './clock.ts'

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const HEX_3 = Array.from({ length: 4096 }, (_, value) => value.toString(16).padStart(3, '0'))
const POOL_BYTES = 8 * 1024

const pool = new Uint8Array(POOL_BYTES)
let poolAt = POOL_BYTES
let lastMs = 0
let counter = 0
let prefix = ''

/**
 * A version 7 UUID (RFC 9562, section 5.7; counter as in section 6.2, method 1): rises strictly within a process, 62 random bits.
 * Entropy is drawn in blocks, which is what makes it cheap.
 */
export function newId(nowMs: number = burstNow()): string {
  if (poolAt + 10 > POOL_BYTES) {
    randomFillSync(pool)
    poolAt = 0
  }
  if (nowMs > lastMs) startMillisecond(nowMs)
  else if (++counter > 0xfff) startMillisecond(lastMs + 1)
  const at = poolAt
  poolAt += 8
  return (
    prefix +
    HEX_3[counter]! +
    '-' +
    HEX[0x80 | (pool[at]! & 0x3f)]! +
    HEX[pool[at + 1]!]! +
    '-' +
    HEX[pool[at + 2]!]! +
    HEX[pool[at + 3]!]! +
    HEX[pool[at + 4]!]! +
    HEX[pool[at + 5]!]! +
    HEX[pool[at + 6]!]! +
    HEX[pool[at + 7]!]!
  )
}

function startMillisecond(ms: number): void {
  lastMs = ms
  // The upper bit stays clear, so that at least 2,048 ids fit into a millisecond before the clock is run ahead.
  counter = ((pool[poolAt]! << 8) | pool[poolAt + 1]!) & 0x7ff
  poolAt += 2
  const time = ms.toString(16).padStart(12, '0')
  prefix = `${time.slice(0, 8)}-${time.slice(8, 12)}-7`
}
