/**
 * The hash that Java's clients choose partitions by (`Utils.murmur2`), as a signed 32-bit integer: whoever publishes with one of them
 * puts a key where we do.
 */
export function murmur2(data: Uint8Array): number {
  const { length } = data
  const M = 0x5bd1e995
  let hash = 0x9747b28c ^ length
  const whole = length & ~3
  for (let at = 0; at < whole; at += 4) {
    let word = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24)
    word = Math.imul(word, M)
    word ^= word >>> 24
    word = Math.imul(word, M)
    hash = Math.imul(hash, M) ^ word
  }
  const left = length - whole
  if (left > 2) hash ^= data[whole + 2]! << 16
  if (left > 1) hash ^= data[whole + 1]! << 8
  if (left > 0) {
    hash ^= data[whole]!
    hash = Math.imul(hash, M)
  }
  hash ^= hash >>> 13
  hash = Math.imul(hash, M)
  return hash ^ (hash >>> 15)
}

/** The partition, of so many, that Java's clients give a message of this key. */
export function partitionOf(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}
