/** Rows are spread over so many shards; a shard is what a relay leases. Fixed: it is stored in every row. */
export const SHARDS = 64

/** First key of the advisory locks that `append` takes (the bytes of "WAYB"); the second is the slot. */
export const ADVISORY_CLASS = 0x57415942

/**
 * The slot of a (topic, key), 0 to 4,095: the first 12 bits of an MD5. In SQL, so that a producer in any language locks alike; bounded, since a
 * transaction with 20,000 keys would run out of lock memory.
 */
export const slotOf = (topic: string, key: string): string => `('x' || substr(md5(${topic} || E'\\n' || ${key}), 1, 3))::bit(12)::int`
