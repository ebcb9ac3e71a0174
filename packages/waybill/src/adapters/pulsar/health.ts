import { isWaybillError } from '../../core/errors.ts'
import type { Observe } from '../../core/observe.ts'

/** Whether the broker is there, as it was seen last; each change is told once. */
export interface Health {
  up(): void
  /** Only what says that the broker is away counts. */
  failed(error: unknown): void
}

export function createHealth(transport: string, observe: Observe): Health {
  let state: 'up' | 'down' | undefined
  return {
    up() {
      if (state === 'up') return
      const known = state
      state = 'up'
      // At first nobody has to hear that all is well.
      if (known !== undefined) observe({ type: 'transport.changed', transport, to: 'up' })
    },
    failed(error) {
      if (state === 'down' || (isWaybillError(error) && error.code !== 'TRANSPORT_UNAVAILABLE' && error.code !== 'UNKNOWN_OUTCOME')) return
      state = 'down'
      observe({ type: 'transport.changed', transport, to: 'down', error })
    },
  }
}
