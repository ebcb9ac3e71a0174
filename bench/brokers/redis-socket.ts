import { type Socket, connect } from 'node:net'

// Redis by hand: the bytes of a command, written to a socket, and replies counted. What a client could cost at least.

const CRLF = Buffer.from('\r\n')

/** A command as the server reads it. */
export function encodeCommand(parts: readonly (string | Uint8Array)[]): Buffer {
  const pieces: Uint8Array[] = [Buffer.from(`*${parts.length}\r\n`)]
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part
    pieces.push(Buffer.from(`$${bytes.byteLength}\r\n`), bytes, CRLF)
  }
  return Buffer.concat(pieces)
}

export interface RedisSocket {
  /** Sends commands whose replies are single lines or bulk strings, and waits for `replies` of them. */
  send(bytes: Buffer, replies: number): Promise<void>
  /** Sends a command that is answered by one nested reply, and gives back how many bytes it had; `isWhole` tells when all of it is there. */
  ask(bytes: Buffer, isWhole: (reply: Buffer) => boolean): Promise<Buffer>
  close(): void
}

/** Counts replies of the form `$N\r\n...\r\n`, `+...\r\n`, `:...\r\n`; throws at an error. */
export async function openRedisSocket(host: string, port: number): Promise<RedisSocket> {
  const socket = connect({ host, port, noDelay: true })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  let onData: (chunk: Buffer) => void = () => {}
  socket.on('data', (chunk: Buffer) => onData(chunk))
  return {
    send(bytes, replies) {
      return new Promise((resolve, reject) => {
        let left = replies
        let rest: Buffer = Buffer.alloc(0)
        onData = (chunk) => {
          const all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
          let at = 0
          for (;;) {
            const end = all.indexOf(13, at)
            if (end === -1 || end + 1 >= all.length) break
            const kind = all[at]
            if (kind === 0x2d) return reject(new Error(all.toString('utf8', at, end)))
            const next = kind === 0x24 ? end + 4 + Number(all.toString('latin1', at + 1, end)) : end + 2
            if (next > all.length) break
            at = next
            left--
          }
          rest = all.subarray(at)
          if (left <= 0) resolve()
        }
        writeAll(socket, bytes)
      })
    },
    ask(bytes, isWhole) {
      return new Promise((resolve) => {
        // Doubled when it is full: joining all chunks for each one would cost more than reading them.
        let room = Buffer.allocUnsafe(ROOM_BYTES)
        let size = 0
        onData = (chunk) => {
          if (size + chunk.length > room.length) room = Buffer.concat([room], 2 * (size + chunk.length))
          size += chunk.copy(room, size)
          const all = room.subarray(0, size)
          if (isWhole(all)) resolve(all)
        }
        writeAll(socket, bytes)
      })
    },
    close: () => void socket.destroy(),
  }
}

const CHUNK_BYTES = 64 * 1024
const ROOM_BYTES = 1024 * 1024

function writeAll(socket: Socket, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) socket.write(bytes.subarray(at, at + CHUNK_BYTES))
}
