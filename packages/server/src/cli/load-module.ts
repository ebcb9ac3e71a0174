import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Observe, type Transport, type Waybill, WaybillError } from 'waybill'

/** What `createApp` is called with; an application that takes no notice of it works as well. */
export interface AppInput {
  /** For `createWaybill`, so that metrics and logs of the command show what the application does. */
  readonly observe: Observe
}

/**
 * The application of a module that exports `createApp()`, not started.
 * @throws WaybillError `INVALID_FILE`
 */
export async function loadApp(file: string, input: AppInput): Promise<Waybill> {
  const wrong = complaint(file, '--app', 'a module that exports createApp(): Waybill')
  const { createApp } = await load(file, 'application', wrong)
  if (typeof createApp !== 'function') throw wrong('the module exports no createApp()')
  const app = (await (createApp as (given: AppInput) => unknown)(input)) as Waybill | undefined
  if (typeof app?.publishAllPending !== 'function') throw wrong('createApp() gave back no Waybill')
  return app
}

/**
 * The transport of a module that exports `createTransport()`, by that name or as its default.
 * @throws WaybillError `INVALID_FILE`
 */
export async function loadTransport(file: string): Promise<Transport> {
  const wrong = complaint(file, '--transport', 'a module that exports createTransport(): Transport')
  const { createTransport, default: byDefault } = await load(file, 'transport', wrong)
  const create = createTransport ?? byDefault
  if (typeof create !== 'function') throw wrong('the module exports no createTransport()')
  const transport = (await (create as () => unknown)()) as Transport | undefined
  if (typeof transport?.publish !== 'function' || typeof transport.close !== 'function' || transport.capabilities === undefined)
    throw wrong('createTransport() gave back no Transport')
  return transport
}

type Complaint = (message: string, cause?: unknown) => WaybillError

function complaint(file: string, where: string, allowed: string): Complaint {
  return (message, cause) =>
    new WaybillError('INVALID_FILE', message, { got: file, allowed, where, ...(cause === undefined ? {} : { cause }) })
}

async function load(file: string, what: string, wrong: Complaint): Promise<Readonly<Record<string, unknown>>> {
  const path = resolve(file)
  if (!existsSync(path)) throw wrong('there is no such file')
  try {
    return (await import(pathToFileURL(path).href)) as Readonly<Record<string, unknown>>
  } catch (cause) {
    throw wrong(`the ${what} could not be loaded: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
}
