import { type Waybill, WaybillError } from 'waybill'
import { busType } from '../cli/broker.ts'
import type { Command } from '../cli/command.ts'
import { loadApp } from '../cli/load-module.ts'

/** `waybill outbox publish`: publishes what is due, once, with the transport and the handlers of an application. */
export const outboxPublishCommand: Command = {
  name: 'outbox publish',
  summary: 'publish everything that is due, once',
  description: [
    'Starts the application that --app names, publishes everything that is due, stops it, and says how many rows',
    'left the outbox, and how many messages its handlers could not handle (dead letters). With the in-process bus the handlers live in the application, so this command needs',
    'it: a row may leave the outbox only when every handler has settled it. FILE is a module that exports',
    '  createApp(): Waybill | Promise<Waybill>    not started yet, as createWaybill() gives it back',
    'With a broker "waybill relay --once" does it without the application.',
  ],
  flags: { app: { value: 'FILE', help: 'module that exports createApp(), .js, .mjs or .ts' } },
  stoppable: true,
  async run({ flags, output, env, signal }) {
    const type = busType(env)
    const file = flags.text('app')
    if (file === undefined && type !== 'inprocess' && type !== 'memory') {
      throw new WaybillError('INVALID_SETTING', `with a broker (${type}) this needs no application; nothing was published`, {
        allowed: '"waybill relay --once"; or --app FILE, a module that exports createApp()',
      })
    }
    if (file === undefined) {
      throw new WaybillError(
        'INVALID_SETTING',
        'no broker is configured, and handlers in process need the application that owns them: --app is missing; nothing was published',
        { allowed: '--app FILE, a module that exports createApp()' },
      )
    }
    const app = await loadApp(file, { observe: () => {} })
    try {
      // Before the start: from there on handlers are at work.
      const before = await app.database.deadLetters.count()
      await app.start()
      const published = await publishUntilStopped(app, signal)
      const deadLettered = Math.max(0, (await app.database.deadLetters.count()) - before)
      const { pending, parked } = await app.database.outbox.stats()
      if (flags.on('json')) output.json({ published, pending, parked, deadLettered })
      else output.print(`${published} published, ${pending} pending, ${parked} parked, ${deadLettered} dead-lettered`)
      if (deadLettered > 0) output.note('handlers could not handle what was dead-lettered: see "waybill doctor"')
      return 0
    } finally {
      await app.stop()
    }
  },
}

/** Publishes what is due. @throws WaybillError `CLOSED` where `signal` aborts before that is done */
export async function publishUntilStopped(app: Waybill, signal: AbortSignal): Promise<number> {
  const { promise: stopped, reject } = Promise.withResolvers<never>()
  const stop = (): void => reject(new WaybillError('CLOSED', 'stopped before everything was published; what is left stays in the outbox'))
  signal.addEventListener('abort', stop, { once: true })
  try {
    if (signal.aborted) stop()
    return await Promise.race([app.publishAllPending(), stopped])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
