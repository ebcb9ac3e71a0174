import { WaybillError } from '../../../core/errors.ts'

// In this order: what may hold a $1 that is none. Comments, quoted names, strings with backslashes, strings, dollar quotes; then parameters, question marks.
const TOKENS =
  /--[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"]|"")*"|\b[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|(?<![\w$])\$(?:[A-Za-z_]\w*)?\$|(?<![\w$])\$(\d+)|\\+\?|\?/g

/**
 * A text with `$1`-style parameters as one with `?` for each, in the order of their places, as Knex wants it. Every other question mark, also in strings
 * and comments, is escaped: Knex looks for them everywhere.
 * @throws WaybillError `UNSUPPORTED` for a backslash before a question mark, which Knex would swallow; `INVALID_OPTION` for a parameter that is missing
 */
export function questionMarks(text: string, params: readonly unknown[]): { readonly text: string; readonly bindings: readonly unknown[] } {
  const bindings: unknown[] = []
  let out = ''
  let at = 0
  TOKENS.lastIndex = 0
  for (let match = TOKENS.exec(text); match !== null; match = TOKENS.exec(text)) {
    out += text.slice(at, match.index)
    const [token, number] = match
    at = match.index + token.length
    if (number !== undefined) {
      const index = Number(number) - 1
      if (index < 0 || index >= params.length)
        throw new WaybillError('INVALID_OPTION', 'a parameter is missing', {
          got: token,
          allowed: `$1 to $${params.length}`,
          where: 'query',
        })
      bindings.push(params[index])
      // Knex reads a question mark and its neighbour as one.
      out += out.endsWith('?') ? ' ?' : '?'
    } else if (token.startsWith('$')) {
      const end = text.indexOf(token, at)
      const quoted = text.slice(match.index, end < 0 ? text.length : end + token.length)
      out += escaped(quoted)
      at = match.index + quoted.length
      TOKENS.lastIndex = at
    } else {
      out += escaped(token)
    }
  }
  return { text: out + text.slice(at), bindings }
}

function escaped(part: string): string {
  if (/\\\?/.test(part))
    throw new WaybillError('UNSUPPORTED', 'Knex has no way to write a backslash before a question mark', {
      allowed: 'a parameter for this text',
      where: 'query',
    })
  return part.replaceAll('?', '\\?')
}
