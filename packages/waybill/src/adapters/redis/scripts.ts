import { type Script, defineScript } from './link.ts'

/** The one consumer of each of our groups at a partition: who may act as it is a matter of the lease. */
export const CONSUMER = 'waybill'

/** Entries that a script reads at once: by so many may it exceed its limit of bytes. */
const STEP = 16

/**
 * A script that runs where the server's memory is full, too: whoever takes over and settles is the one who makes room. Only storing is refused then.
 */
const lasting = (source: string): Script => defineScript(`#!lua flags=allow-oom\n${source}`)

const FENCED = `
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return redis.error_reply('LEASELOST the lease is with somebody else') end
`

const FIELDS = `
local function fields(flat)
  local map = {}
  for at = 1, #flat, 2 do map[flat[at]] = flat[at + 1] end
  return map
end
`

const STATE = `${FIELDS}
local function state(stream, group)
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = fields(each)
    if found['name'] == group then
      local info = fields(redis.call('XINFO', 'STREAM', stream))
      return { info['entries-added'], info['length'], info['last-generated-id'], found['last-delivered-id'], found['entries-read'] or -1 }
    end
  end
  return nil
end
local function isAfter(one, other)
  local ms, number = string.match(one, '(%d+)-(%d+)')
  local otherMs, otherNumber = string.match(other, '(%d+)-(%d+)')
  if ms ~= otherMs then return tonumber(ms) > tonumber(otherMs) end
  return tonumber(number) > tonumber(otherNumber)
end
local function ensure(stream, group, start)
  if state(stream, group) then return 0 end
  local added, removed, last = 0, 0, '0-0'
  if redis.call('EXISTS', stream) == 1 then
    local info = fields(redis.call('XINFO', 'STREAM', stream))
    added, removed, last = info['entries-added'], info['entries-added'] - info['length'], info['last-generated-id']
  end
  if ARGV[3] == 'again' and isAfter(start, last) then start = '0-0' end
  if start == '0-0' then redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM', 'ENTRIESREAD', removed)
  elseif start == '$' then redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM', 'ENTRIESREAD', added)
  else redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM') end
  return 1
end
`

/**
 * Stores messages. KEYS streams; one argument holds all messages, packed: of each the number of its stream (16 bits), id (empty where the headers tell it) and
 * key, each after its length (16 bits), headers and body, each after its length (32). A stream that refuses one gets none of those after it. Gives the count,
 * or `[stream, first refused, why, ...]`.
 */
export const PUBLISH = defineScript(`
local data, at, size, index = ARGV[1], 1, #ARGV[1], 0
local failed, failures = {}, nil
while at <= size do
  local stream, id, key, headers, body
  stream, id, key, headers, body, at = struct.unpack('>I2I2c0I2c0I4c0I4c0', data, at)
  if not failed[stream] then
    local reply
    if id == '' then reply = redis.pcall('XADD', KEYS[stream], '*', 'key', key, 'headers', headers, 'body', body)
    else reply = redis.pcall('XADD', KEYS[stream], '*', 'id', id, 'key', key, 'headers', headers, 'body', body) end
    if type(reply) == 'table' and reply.err then
      failed[stream] = true
      failures = failures or {}
      failures[#failures + 1] = stream
      failures[#failures + 1] = index
      failures[#failures + 1] = reply.err
    end
  end
  index = index + 1
end
return failures or index
`)

/** KEYS topic; ARGV partitions, or 0 to make nothing. The topic's partitions, 0 where there is no such topic. */
export const TOPIC = lasting(`
local known = redis.call('HGET', KEYS[1], 'partitions')
if known then return tonumber(known) end
if ARGV[1] ~= '0' then redis.call('HSET', KEYS[1], 'partitions', ARGV[1]) end
return tonumber(ARGV[1])
`)

/** KEYS stream; ARGV group, start, `first` or `again`. 1 where the group had to be made. */
export const ENSURE = lasting(`${STATE}
return ensure(KEYS[1], ARGV[1], ARGV[2])
`)

/** KEYS stream, lease, fence; ARGV group, start, `first` or `again`, name, lease in ms. Nothing where it is taken; else token, made, state. */
export const ACQUIRE = lasting(`${STATE}
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
local made = ensure(KEYS[1], ARGV[1], ARGV[2])
local token = redis.call('HINCRBY', KEYS[3], ARGV[1], 1) .. ':' .. ARGV[4]
redis.call('SET', KEYS[2], token, 'PX', ARGV[5])
return { token, made, unpack(state(KEYS[1], ARGV[1])) }
`)

/** KEYS stream, lease; ARGV group, token, lease in ms. The state; nothing where stream or group are gone. */
export const RENEW = lasting(`${STATE}${FENCED}
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return state(KEYS[1], ARGV[1]) or false
`)

/** KEYS stream, lease; ARGV group, token. 1 where it was ours. */
export const RELEASE = lasting(`
if redis.call('GET', KEYS[2]) == ARGV[2] then return redis.call('DEL', KEYS[2]) end
return 0
`)

const COUNT_BYTES = `
local function bytesOf(entries)
  local bytes = 0
  for _, entry in ipairs(entries) do
    if entry[2] then for _, field in ipairs(entry[2]) do bytes = bytes + #field end end
  end
  return bytes
end
`

/** KEYS stream, lease; ARGV group, token, most messages. New entries. */
export const FETCH = lasting(`${FENCED}
local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], '${CONSUMER}', 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
return reply and reply[1][2] or {}
`)

/** KEYS stream, lease; ARGV group, token, most messages, most bytes, cursor. What is pending: next cursor, how many were deleted, arrays of entries. */
export const CLAIM = lasting(`${COUNT_BYTES}${FENCED}
local chunks, count, bytes, deleted, cursor = {}, 0, 0, 0, ARGV[5]
local most, mostBytes = tonumber(ARGV[3]), tonumber(ARGV[4])
repeat
  local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], '${CONSUMER}', 0, cursor, 'COUNT', ${STEP})
  cursor = reply[1]
  if #reply[2] > 0 then chunks[#chunks + 1] = reply[2] end
  count = count + #reply[2]
  bytes = bytes + bytesOf(reply[2])
  deleted = deleted + #(reply[3] or {})
until cursor == '0-0' or count >= most or bytes >= mostBytes
return { cursor, deleted, chunks }
`)

/** KEYS stream; ARGV exclusive start, most messages, most bytes. How the stream stands (added, length, last id), and what a tail reads, as arrays of entries. */
export const TAIL = lasting(`${COUNT_BYTES}${FIELDS}
local info = redis.call('EXISTS', KEYS[1]) == 1 and fields(redis.call('XINFO', 'STREAM', KEYS[1]))
  or { ['entries-added'] = 0, length = 0, ['last-generated-id'] = '0-0' }
local chunks, count, bytes, after = {}, 0, 0, ARGV[1]
local most, mostBytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while count < most and bytes < mostBytes do
  local entries = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', ${STEP})
  if #entries == 0 then break end
  chunks[#chunks + 1] = entries
  count = count + #entries
  bytes = bytes + bytesOf(entries)
  after = entries[#entries][1]
  if #entries < ${STEP} then break end
end
return { { info['entries-added'], info['length'], info['last-generated-id'] }, chunks }
`)

/** KEYS stream, lease; ARGV group, token, ids. How many were pending. */
export const ACK = lasting(`${FENCED}
return redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
`)

const RING = `
local function ring(bell)
  redis.call('XADD', bell, 'MAXLEN', '1', '*', 'changed', '1')
  redis.call('PEXPIRE', bell, 3600000)
end
`

/** KEYS members, bell; ARGV member, how long it counts, in ms. The bell's last id, and the members. */
export const JOIN = lasting(`${RING}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local came = redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 2)
if gone + came > 0 then ring(KEYS[2]) end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', '1')
return { last[1] and last[1][1] or '0-0', unpack(redis.call('ZRANGE', KEYS[1], 0, -1)) }
`)

/** KEYS members, bell; ARGV the member that leaves, if any. Tells the others to look at the leases again. */
export const CHANGED = lasting(`${RING}
if ARGV[1] then redis.call('ZREM', KEYS[1], ARGV[1]) end
ring(KEYS[2])
return 1
`)

/** KEYS stream; ARGV the id from which on all is needed, most entries, most to look at. Removes the oldest that are too many, and settled. */
export const TRIM_COUNT = lasting(`${STATE}
local many = math.min(redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2]), tonumber(ARGV[3]))
if many <= 0 then return 0 end
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', many)
local last = entries[#entries]
if not last then return 0 end
local limit = isAfter(last[1], ARGV[1]) and ARGV[1] or last[1]
return redis.call('XTRIM', KEYS[1], 'MINID', '=', limit)
`)

/** ARGV messages, channels. One argument holds all messages: for each the number of its channel (16 bits), its length (32), and itself. */
export const SPREAD = lasting(`
local data, at, size = ARGV[1], 1, #ARGV[1]
while at <= size do
  local channel, length
  channel, length, at = struct.unpack('>I2I4', data, at)
  redis.call('PUBLISH', ARGV[channel + 1], string.sub(data, at, at + length - 1))
  at = at + length
end
return 1
`)
