import type { Observe } from 'waybill'
import type { Output } from './output.ts'
import { messageOf, printable } from './printable.ts'

/** Tells people, on stderr, what a transport has to say beside its messages; of its errors what `explain` makes of them. */
export function sayTransport(output: Output, explain: (error: unknown) => unknown): Observe {
  let isDown = false
  return (event) => {
    switch (event.type) {
      case 'transport.changed':
        // That it answers is news only where it did not before.
        if (event.to === 'up' && !isDown) return
        isDown = event.to === 'down'
        return output.note(
          event.to === 'up'
            ? `${event.transport} answers again`
            : `${event.transport} does not answer, trying again${event.error === undefined ? '' : `: ${printable(messageOf(explain(event.error)))}`}`,
        )
      case 'transport.gap':
        return output.note(`${event.transport} no longer has all of ${printable(event.topic)}: ${printable(messageOf(event.error))}`)
      case 'transport.failed':
        return output.note(`${event.transport}: ${printable(messageOf(event.error))}`)
      default:
    }
  }
}
