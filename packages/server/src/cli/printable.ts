// Line ends and tabs may stand in a body that is shown as it is.
const CONTROLS = /[\p{Cc}\p{Cf}\u2028\u2029]/gu
const CONTROLS_BUT_LINES = /(?!\n)[\p{Cc}\p{Cf}\u2028\u2029]/gu

/** Text from elsewhere, for a terminal: what is not printable must not move the cursor of who reads it. `lines`: line ends stay. */
export function printable(text: string, { lines = false }: { readonly lines?: boolean } = {}): string {
  return text.replaceAll(
    lines ? CONTROLS_BUT_LINES : CONTROLS,
    (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  )
}

/** A length of time for people: `350 ms`, `12.3 s`, `4 min`, `2.5 h`, `3 d`. */
export function lengthOfTime(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 120_000) return `${(ms / 1_000).toFixed(1)} s`
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`
  if (ms < 172_800_000) return `${(ms / 3_600_000).toFixed(1)} h`
  return `${Math.round(ms / 86_400_000)} d`
}

/** `1 row`, `2 rows`. */
export function counted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? '' : 's'}`
}

/** What can be said of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.message || error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}
