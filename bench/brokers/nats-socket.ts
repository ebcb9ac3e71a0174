import { connect } from 'node:net'

// NATS by hand: PUB with a reply subject, and acks counted. What a client could cost at least.

export interface NatsSocket {
  /** Writes bytes and waits until so many messages have come since. */
  send(bytes: Buffer, messages: number): Promise<void>
  /** Bodies are handed over as they come; the answer is written back at once. */
  onMessage: ((subject: string, reply: string | undefined) => void) | undefined
  write(text: string): void
  close(): void
}

/** Connects and subscribes to `inbox.*`; counts messages (MSG and HMSG). */
export async function openNatsSocket(host: string, port: number, inbox: string): Promise<NatsSocket> {
  const socket = connect({ host, port, noDelay: true })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  let left = 0
  let done = (): void => {}
  let rest: Buffer = Buffer.alloc(0)
  const self: NatsSocket = {
    onMessage: undefined,
    send(bytes, messages) {
      left = messages
      return new Promise((resolve) => {
        done = resolve
        for (let at = 0; at < bytes.length; at += 64 * 1024) socket.write(bytes.subarray(at, at + 64 * 1024))
      })
    },
    write: (text) => void socket.write(text),
    close: () => void socket.destroy(),
  }
  socket.on('data', (chunk: Buffer) => {
    const all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    for (;;) {
      const end = all.indexOf(10, at)
      if (end === -1) break
      const kind = all[at]
      if (kind === 0x4d || kind === 0x48) {
        // MSG subject sid [reply] size, or HMSG with one more size.
        const words = all.toString('latin1', at, end - 1).split(' ')
        const next = end + 1 + Number(words.at(-1)) + 2
        if (next > all.length) break
        at = next
        self.onMessage?.(words[1]!, words.length === (kind === 0x4d ? 5 : 6) ? words[3] : undefined)
        if (--left === 0) done()
      } else {
        if (kind === 0x50 && all[at + 1] === 0x49) socket.write('PONG\r\n')
        if (kind === 0x2d) throw new Error(all.toString('utf8', at, end))
        at = end + 1
      }
    }
    rest = all.subarray(at)
  })
  socket.write(`CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nSUB ${inbox}.* 1\r\n`)
  return self
}
