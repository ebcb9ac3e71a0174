import type { WaybillError } from '../../core/errors.ts'
import type { Observe } from '../../core/observe.ts'

/** Whether the broker answers, as far as all users of a transport have seen. */
export interface Health {
  readonly isDown: boolean
  up(): void
  down(error: WaybillError): void
}

/** Tells of changes only. */
export function createHealth(observe: Observe): Health {
  let isDown = false
  return {
    get isDown() {
      return isDown
    },
    up() {
      if (!isDown) return
      isDown = false
      observe({ type: 'transport.changed', transport: 'kafka', to: 'up' })
    },
    down(error) {
      if (isDown) return
      isDown = true
      observe({ type: 'transport.changed', transport: 'kafka', to: 'down', error })
    },
  }
}
