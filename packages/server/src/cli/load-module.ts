import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Observe, type Transport, type Waybill, WaybillError, isWaybillError } from 'waybill'
import { messageOf } from './printable.ts'

const CREATE_MAX_MS = 30_000

/** What `createApp` is called with; an application that takes no notice of it works as well. */
export interface AppInput {
  /** For `createWaybill`, so that metrics and logs of the command show what the application does. */
  readonly observe: Observe
}

/**
 * The application of a module that exports `createApp()`, not started. It has `limitMs` for making it.
 * @throws WaybillError `INVALID_FILE` | `TIMEOUT`
 */
export async function loadApp(file: string, input: AppInput, limitMs = CREATE_MAX_MS): Promise<Waybill> {
  const wrong = complaint(file, '--app', 'a module that exports createApp(): Waybill')
  const { createApp } = await load(file, 'application', wrong)
  if (typeof createApp !== 'function') throw wrong('the module exports no createApp()')
  const made = await called('createApp()', () => (createApp as (given: AppInput) => unknown)(input), file, '--app', limitMs)
  const app = made as Waybill | undefined
  if (typeof app?.publishAllPending !== 'function') throw wrong('createApp() gave back no Waybill')
  return app
}

/**
 * The transport of a module that exports `createTransport()`, by that name or as its default. It has `limitMs` for making it.
 * @throws WaybillError `INVALID_FILE` | `TIMEOUT`
 */
export async function loadTransport(file: string, limitMs = CREATE_MAX_MS): Promise<Transport> {
  const wrong = complaint(file, '--transport', 'a module that exports createTransport(): Transport')
  const { createTransport, default: byDefault } = await load(file, 'transport', wrong)
  const create = createTransport ?? byDefault
  if (typeof create !== 'function') throw wrong('the module exports no createTransport()')
  const made = await called('createTransport()', create as () => unknown, file, '--transport', limitMs)
  const transport = made as Transport | undefined
  if (typeof transport?.publish !== 'function' || typeof transport.close !== 'function' || transport.capabilities === undefined)
    throw wrong('createTransport() gave back no Transport')
  return transport
}

/** What `create` gives back. An error of ours says by itself what is wrong, and keeps its code. */
async function called(name: string, create: () => unknown, file: string, where: string, limitMs: number): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  // The timer also keeps the process alive, where nothing else does.
  const late = new Promise<never>((_, reject) => {
    const error = new WaybillError('TIMEOUT', `${name} of ${file} did not end in time`, { allowed: `at most ${limitMs} ms`, where })
    timer = setTimeout(() => reject(error), limitMs)
  })
  try {
    return await Promise.race([(async () => create())(), late])
  } catch (cause) {
    if (isWaybillError(cause)) throw cause
    throw new WaybillError('INVALID_FILE', `${name} of ${file} failed: ${messageOf(cause)}`, { where, cause })
  } finally {
    clearTimeout(timer)
  }
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
    throw wrong(`the ${what} could not be loaded: ${messageOf(cause)}`, cause)
  }
}
