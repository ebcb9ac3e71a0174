import { type Logger, pino } from 'pino'
import { type Observe, type WaybillEvent, isWaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'
import type { LogLevel } from './settings.ts'

const REPEAT_MS = 10_000
const REMEMBERED_MAX = 200

/** JSON lines, one each. `write` gets a line without its end. */
export function createLog(level: LogLevel, write: (line: string) => void): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    {
      write: (text: string) => write(text.trimEnd()),
    },
  )
}

/**
 * Says what is observed: normal work at debug, changes at info, what somebody should see above. The same complaint again within 10 s is
 * counted, not written: a database that is down for an hour must not fill a disk.
 */
export function logEvents(log: Logger, now: () => number = () => performance.now()): Observe {
  const said = new Map<string, { at: number; silent: number }>()

  function complain(level: 'warn' | 'error', name: string, text: string, fields: Readonly<Record<string, unknown>>): void {
    const subject = `${name} ${text}`
    const before = said.get(subject)
    if (before !== undefined && now() - before.at < REPEAT_MS) {
      before.silent++
      return
    }
    if (said.size >= REMEMBERED_MAX) said.delete(said.keys().next().value!)
    said.set(subject, { at: now(), silent: 0 })
    log[level]({ ...fields, event: name, ...(before === undefined || before.silent === 0 ? {} : { repeated: before.silent }) }, text)
  }

  return (event) => {
    const { type, ...fields } = event
    switch (event.type) {
      case 'relay.failed':
      case 'consumer.failed':
      case 'unit.failed':
        return complain('error', type, messageOf(event.error), { ...withoutError(fields), ...codeOf(event.error) })
      case 'relay.parked':
        return log.error({ ...withoutError(fields), event: type }, event.error)
      case 'relay.held':
        return complain('warn', type, event.error, withoutError(fields))
      case 'delivery.failed':
        return complain('warn', type, messageOf(event.error), withoutError(fields))
      case 'delivery.parked':
        return log.error({ ...withoutError(fields), event: type }, event.error ?? event.reason)
      case 'breaker.changed':
        return log[event.to === 'closed' ? 'info' : 'warn'](
          {
            ...withoutError(fields),
            event: type,
            ...(event.error === undefined ? {} : { reason: messageOf(event.error), ...codeOf(event.error) }),
          },
          `circuit breaker of ${event.path} is ${event.to}`,
        )
      case 'relay.acquired':
        return log.info({ ...fields, event: type }, `holds ${event.shards} of 64 shards`)
      case 'relay.hints':
        return sayHints(log, event)
      case 'transport.changed':
      case 'transport.assigned':
      case 'transport.gap':
      case 'transport.warned':
      case 'transport.failed':
        return sayTransport(log, event, complain)
      default:
        return log.debug({ ...fields, event: type })
    }
  }
}

type Complain = (level: 'warn' | 'error', name: string, text: string, fields: Readonly<Record<string, unknown>>) => void
type TransportEvent = Extract<WaybillEvent, { readonly type: `transport.${string}` }>

function sayTransport(log: Logger, event: TransportEvent, complain: Complain): void {
  const { type, ...fields } = event
  switch (event.type) {
    case 'transport.changed': {
      if (event.to === 'up') return log.info({ ...withoutError(fields), event: type }, `${event.transport} answers`)
      const reason = event.error === undefined ? {} : { reason: messageOf(event.error), ...codeOf(event.error) }
      return log.warn({ ...withoutError(fields), event: type, ...reason }, `${event.transport} does not answer: it is tried again`)
    }
    case 'transport.assigned':
      return log.info({ ...fields, event: type }, `holds ${event.gained.length} partitions more, ${event.lost.length} less`)
    case 'transport.gap':
      // Each is a loss of its own, so none is left out.
      return log.error({ ...withoutError(fields), event: type, ...codeOf(event.error) }, messageOf(event.error))
    case 'transport.warned':
      return complain('warn', type, event.text, withoutText(fields))
    case 'transport.failed':
      return complain('warn', type, messageOf(event.error), { ...withoutError(fields), ...codeOf(event.error) })
  }
}

function sayHints(log: Logger, event: Extract<WaybillEvent, { readonly type: 'relay.hints' }>): void {
  if (event.state === 'listening') return log.info({ event: event.type, state: event.state }, 'the database wakes this relay')
  log.warn(
    { event: event.type, state: event.state, ...(event.error === undefined ? {} : { reason: messageOf(event.error) }) },
    'the database does not wake this relay: it polls',
  )
}

function withoutError(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name !== 'error'))
}

function withoutText(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name !== 'text'))
}

function codeOf(error: unknown): { readonly code?: string } {
  return isWaybillError(error) ? { code: error.code } : {}
}
