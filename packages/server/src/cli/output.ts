import { styleText } from 'node:util'

/** The part of a stream that the command writes to. */
export interface StreamLike {
  readonly isTTY?: boolean
  /** 0 where a terminal does not tell. */
  readonly columns?: number
  write(text: string): unknown
  /** True while more is queued than should be. */
  readonly writableNeedDrain?: boolean
  /** Not null once writing has failed: whoever read it is gone. */
  readonly errored?: Error | null
  on?(event: 'drain' | 'error' | 'close', listener: () => void): unknown
  off?(event: 'drain' | 'error' | 'close', listener: () => void): unknown
}

/** A style of `node:util` styleText that the command uses. */
export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** Everything the command says goes through here: results on stdout, all else on stderr. */
export interface Output {
  /** A line of the result. */
  print(line?: string): void
  /** The result for machines: one object, nothing else. */
  json(value: unknown): void
  /** A remark beside the result. */
  note(line: string): void
  /** What went wrong, in one line. */
  fail(message: string): void
  /** The one line that is rewritten as work goes on; nothing where nobody watches. */
  progress(text: string): void
  /** Resolves once stdout takes more; false where nobody reads it any more. Whoever prints without end waits for it. */
  room(signal: AbortSignal): Promise<boolean>
  /** Paints text for stdout; gives it back as it is where colour is not wanted (NO_COLOR, no terminal). */
  paint(style: Style, text: string): string
  /** The same for stderr. */
  paintNote(style: Style, text: string): string
}

export interface OutputOptions {
  readonly stdout: StreamLike
  readonly stderr: StreamLike
  readonly env: Readonly<Record<string, string | undefined>>
}

const CLEAR_LINE = '\r\u001b[2K'
const NARROW = 80

/** Writes to the given streams. Secrets of `hide` never get through, wherever a message picked them up. */
export function createOutput({ stdout, stderr, env }: OutputOptions, hide: () => readonly string[] = () => []): Output {
  const colourOn = (stream: StreamLike): boolean => {
    if (env.NO_COLOR !== undefined && env.NO_COLOR !== '') return false
    if (env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== '') return env.FORCE_COLOR !== '0'
    return stream.isTTY === true && env.TERM !== 'dumb'
  }
  const [outColour, errColour] = [colourOn(stdout), colourOn(stderr)]
  const style = (on: boolean, name: Style, text: string): string =>
    on && text !== '' ? styleText(name, text, { validateStream: false }) : text
  let live = false

  function clearLive(): void {
    if (!live) return
    live = false
    stderr.write(CLEAR_LINE)
  }

  function masked(text: string): string {
    // The longest first: a shorter one may be a part of it.
    const secrets = hide().toSorted((one, other) => other.length - one.length)
    return secrets.reduce((result, secret) => (secret === '' ? result : result.replaceAll(secret, '***')), text)
  }

  function write(stream: StreamLike, text: string): void {
    clearLive()
    stream.write(`${masked(text)}\n`)
  }

  return {
    print: (line = '') => write(stdout, line),
    json: (value) => write(stdout, JSON.stringify(value)),
    note: (line) => write(stderr, line),
    fail: (message) => write(stderr, `${style(errColour, 'red', 'waybill:')} ${message.replaceAll(/\s*\n\s*/g, ' ')}`),
    progress(text) {
      if (stderr.isTTY !== true) return
      live = true
      stderr.write(CLEAR_LINE + cut(masked(text), (stderr.columns || NARROW) - 1))
    },
    async room(signal) {
      const gone = (): boolean => (stdout.errored ?? undefined) !== undefined
      if (stdout.writableNeedDrain === true && !gone() && !signal.aborted) await oneOf(stdout, ['drain', 'error', 'close'], signal)
      return !gone()
    },
    paint: (name, text) => style(outColour, name, text),
    paintNote: (name, text) => style(errColour, name, text),
  }
}

function oneOf(stream: StreamLike, events: readonly ('drain' | 'error' | 'close')[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of events) stream.off?.(event, done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    for (const event of events) stream.on?.(event, done)
    signal.addEventListener('abort', done)
  })
}

// A colour or a cut character is worth more than a progress line that wraps and can't be rewritten.
function cut(text: string, width: number): string {
  let shown = 0
  let result = ''
  for (const [part] of text.matchAll(/\u001b\[[0-9;]*m|./gsu)) {
    if (part.startsWith('\u001b[')) result += part
    else if (shown++ < width) result += part
  }
  return result
}

/** A table of plain text for people: columns padded to their widest cell, numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)))
  const numeric = header.map((_, column) => rows.length > 0 && rows.every((row) => /^-?[\d,.]*$/.test(row[column] ?? '')))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (numeric[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd()
  return [header, ...rows].map(line)
}
