import { isUtf8 } from 'node:buffer'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseEnv } from 'node:util'
import { WaybillError } from 'waybill'
import { messageOf } from './printable.ts'
import type { Environment } from './settings.ts'

const FILE_DEFAULT = '.env'
const FILE_MAX_BYTES = 1024 * 1024

/**
 * What a file of settings adds: `file`, or else `.env` of the current folder where there is one. Read as Node reads it.
 * @throws WaybillError `INVALID_FILE` for a file that can't be read, and for a line that Node would pass over without a word; no value is shown
 */
export function readEnvFile(file?: string): Environment {
  const where = file === undefined ? '.env' : '--env-file'
  const path = resolve(file ?? FILE_DEFAULT)
  const wrong = (message: string, cause?: unknown): WaybillError =>
    new WaybillError('INVALID_FILE', `${where} ${message}`, {
      got: path,
      allowed: 'a text file of lines NAME=value',
      ...(cause === undefined ? {} : { cause }),
    })
  const bytes = contentOf(path, file === undefined, wrong)
  if (bytes === undefined) return {}
  if (!isUtf8(bytes) || bytes.includes(0)) throw wrong('is no text (UTF-8)')
  const text = bytes.toString('utf8').replace(/^\uFEFF/, '')
  const flaw = flawIn(text)
  if (flaw !== undefined) throw wrong(`can't be used: line ${flaw.line} ${flaw.what}`)
  return parseEnv(text)
}

function contentOf(path: string, optional: boolean, wrong: (message: string, cause?: unknown) => WaybillError): Buffer | undefined {
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' && optional) return undefined
    throw wrong(code === 'ENOENT' ? 'names a file that is not there' : `can't be read: ${messageOf(cause)}`, cause)
  }
  try {
    const status = fstatSync(file)
    // A folder of that name is somebody's own; who has named one has made a mistake.
    if (status.isDirectory() && optional) return undefined
    if (status.isDirectory()) throw wrong('is a folder')
    if (status.size > FILE_MAX_BYTES) throw wrong(`is larger than ${FILE_MAX_BYTES} bytes`)
    return readFileSync(file)
  } finally {
    closeSync(file)
  }
}

/** The first line that is neither a setting nor a comment, nor within quotes. */
function flawIn(text: string): { readonly line: number; readonly what: string } | undefined {
  let at = 0
  while (at < text.length) {
    const end = lineEnd(text, at)
    const line = text.slice(at, end)
    const what = flaw(line)
    if (what !== undefined) return { line: text.slice(0, at).split('\n').length, what }
    const quote = /^[^=#]*=[ \t]*(["'`])/.exec(line)
    // What is in quotes may go over several lines.
    const closing = quote === null ? -1 : text.indexOf(quote[1]!, at + quote[0].length)
    if (quote !== null && closing === -1) return { line: text.slice(0, at).split('\n').length, what: 'opens a quote that is never closed' }
    at = (closing === -1 ? end : lineEnd(text, closing)) + 1
  }
  return undefined
}

function flaw(line: string): string | undefined {
  const trimmed = line.trim()
  if (trimmed === '' || trimmed.startsWith('#')) return undefined
  if (!trimmed.includes('=')) return 'has no "="'
  return /^(?:export\s+)?[A-Za-z_][A-Za-z0-9_.-]*\s*=/.test(trimmed) ? undefined : 'does not begin with a name'
}

function lineEnd(text: string, from: number): number {
  const at = text.indexOf('\n', from)
  return at === -1 ? text.length : at
}
