import { type BrokerReport, type Transport, isWaybillError } from 'waybill'
import { type BrokerChoice, adminOf, ask, openBroker } from '../cli/broker.ts'
import type { CommandInput } from '../cli/command.ts'
import { messageOf, printable } from '../cli/printable.ts'
import type { Finding, Level } from './finding.ts'

const LEVELS: Readonly<Record<BrokerReport['findings'][number]['level'], Level>> = { warning: 'warn', error: 'error' }

/**
 * Looks at the broker: whether it answers and lets us in, what it is, and which of its settings lose or reorder messages. A broker that can't be asked
 * is a finding; a wrong setting of ours is an error.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE` | `UNSUPPORTED`
 */
export async function brokerFindings({ env, signal }: CommandInput, choice: BrokerChoice): Promise<readonly Finding[]> {
  let transport: Transport | undefined
  try {
    transport = await openBroker(choice, env)
    const admin = adminOf(transport)
    return reported(await ask(choice, env, signal, (limit) => admin.examine(limit)))
  } catch (error) {
    if (isWaybillError(error, 'INVALID_SETTING', 'INVALID_OPTION', 'INVALID_FILE', 'UNSUPPORTED')) throw error
    return [{ check: 'broker', level: 'error', found: printable(messageOf(error)), advice: adviceFor(error, choice) }]
  } finally {
    await transport?.close()
  }
}

function reported({ product, version, address, settings, findings }: BrokerReport): readonly Finding[] {
  const named = Object.entries(settings).map(([name, value]) => printable(`${name} = ${value === '' ? '""' : value}`))
  return [
    { check: 'broker', level: 'ok', found: printable(`${product} ${version} at ${address}`) },
    ...(named.length === 0 ? [] : [{ check: 'broker settings', level: 'ok', found: named.join(', ') } as const]),
    ...findings.map(({ level, text, advice }) => ({
      check: 'broker',
      level: LEVELS[level],
      found: printable(text),
      advice: printable(advice),
    })),
  ]
}

function adviceFor(error: unknown, choice: BrokerChoice): string {
  const settings = choice.kind === 'transport' ? `the transport of ${choice.file}` : `the ${choice.type.toUpperCase()}_ settings`
  if (isWaybillError(error, 'PEER_MISSING')) return 'install the package, in the folder where "waybill" is installed'
  if (isWaybillError(error, 'ACCESS_DENIED'))
    return `correct user, password or token in ${settings}; or give this user the rights that it lacks, at the broker`
  return `start the broker; or correct its address, and whether it speaks TLS, in ${settings}`
}
