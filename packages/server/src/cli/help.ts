import { COMMON_FLAGS, type Command } from './command.ts'

/** The help of `waybill` itself: what there is, and what it reads from the environment. */
export function globalHelp(commands: readonly Command[]): readonly string[] {
  return [
    'Usage: waybill COMMAND [OPTIONS]',
    '',
    'Commands',
    ...columns(commands.map(({ name, summary }) => [name, summary])),
    '',
    'Options',
    ...columns([
      ['--help, -h', 'show this help, or that of a command'],
      ['--version, -v', 'show the version'],
    ]),
    '',
    'Environment',
    ...columns([
      ['DATABASE_URL', 'postgres://user@host:5432/name, or a PGlite folder: ./folder, pglite:folder, file:///folder'],
      ['MESSAGE_BUS_TYPE', 'inprocess (default; alias memory), kafka, nats, redis or pulsar'],
      ['KAFKA_BOOTSTRAP_SERVERS', 'where Kafka is: host:9092, several with commas between'],
      ['NATS_URL, REDIS_URL, PULSAR_URL', 'where that broker is: nats://host:4222, redis://host:6379, pulsar://host:6650'],
      ['HOST, PORT', 'where "waybill relay" serves metrics and health (default 127.0.0.1, 9464)'],
      ['NO_COLOR', 'any value: no colour'],
      ['LOG_LEVEL', 'trace, debug, info (default), warn, error, fatal or silent; debug also shows where an unexpected error came from'],
    ]),
    '',
    'What the environment leaves open is read from the file .env of the current folder, or from that of --env-file.',
    '',
    'Exit codes: 0 done; 1 failed, or a check found something; 2 wrong usage or a wrong setting.',
  ]
}

/** The help of one command. */
export function commandHelp({ name, description, flags, positional }: Command): readonly string[] {
  const rows = Object.entries({ ...flags, ...COMMON_FLAGS }).map(([flag, { value, help, short }]) => {
    const text = `--${flag}${value === undefined ? '' : ` ${value}`}${short === undefined ? '' : `, -${short}`}`
    return [text, help] as const
  })
  const argument = positional === undefined ? '' : ` [${flags[positional]?.value}${flags[positional]?.multiple === true ? ' ...' : ''}]`
  return [`Usage: waybill ${name}${argument} [OPTIONS]`, '', ...description, '', 'Options', ...columns(rows)]
}

function columns(rows: readonly (readonly [string, string])[]): readonly string[] {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`)
}
