import { type Observe, type Transport, type WaybillError, isWaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'

/** Whether the broker answers, for whoever asks this process. */
export interface TransportState {
  /** Told by the transport itself. */
  readonly observe: Observe
  /** Asked where it has not said that it is up: a relay without work has no reason to connect. */
  watch(transport: Transport): void
  /** What is wrong, within `limitMs`; undefined where nothing is, or nobody can tell. */
  trouble(limitMs: number): Promise<string | undefined>
  /** The error with which the broker has refused the credentials, the last time that it was tried. */
  refusal(): WaybillError | undefined
}

/** Follows what a transport says of its broker. However many ask at once, one question is under way there. */
export function createTransportState(): TransportState {
  let transport: Transport | undefined
  let said: 'up' | 'down' | undefined
  let cause: unknown
  let asking: Promise<string | undefined> | undefined

  async function examine(admin: NonNullable<Transport['admin']>, limitMs: number): Promise<string | undefined> {
    const limit = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        limit.abort()
        reject(new Error(`the broker did not answer within ${limitMs} ms`))
      }, limitMs)
    })
    try {
      await Promise.race([admin.examine(limit.signal), late])
      // What was said meanwhile is newer.
      said ??= 'up'
      return undefined
    } catch (error) {
      // Who may publish may not be allowed to ask; one who may not even log in is said to be down by the transport.
      if (said === undefined && isWaybillError(error, 'ACCESS_DENIED')) return undefined
      return said === 'up' ? undefined : messageOf(error)
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    observe(event) {
      switch (event.type) {
        case 'transport.changed':
          said = event.to
          cause = event.error
          return
        case 'relay.published':
          said = 'up'
          return
        default:
      }
    },
    watch: (watched) => void (transport = watched),
    async trouble(limitMs) {
      if (said === 'up') return undefined
      if (transport?.admin !== undefined) {
        // Also where it is down: in a relay without work nothing else would find that it is back.
        const { admin } = transport
        const found = await (asking ??= examine(admin, limitMs).finally(() => (asking = undefined)))
        if (said !== 'down') return found
      }
      if (said === undefined) return undefined
      return cause === undefined ? 'it does not answer' : messageOf(cause)
    },
    refusal: () => (said === 'down' && isWaybillError(cause, 'ACCESS_DENIED') ? cause : undefined),
  }
}
