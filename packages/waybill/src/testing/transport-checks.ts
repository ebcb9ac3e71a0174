import type { Observe } from '../core/observe.ts'
import type { Capabilities, Transport } from '../core/transport.ts'
import type { FaultProxy } from './fault-proxy.ts'
import type { Bench } from './transport-tools.ts'

/** What a transport is asked for: the rows of the matrix, by the numbers under which they are known. 15 to 19 concern retry and dead letters. */
export const TRANSPORT_CHECKS = [
  { id: 'roundtrip-fidelity', number: 1, promise: 'ids, keys, headers and bodies come out as they went in, whatever bytes they are' },
  { id: 'envelope-attributes', number: 2, promise: 'CloudEvents attributes, traceparent and unknown attributes come out unchanged' },
  {
    id: 'publish-ack-is-broker-ack',
    number: 3,
    promise: 'stored is said only once the broker has it; without a broker publish ends within its limit',
  },
  { id: 'publish-unknown-outcome-typed', number: 4, promise: 'what was cut after it was sent is unknown, never success' },
  { id: 'batch-partial-failure', number: 5, promise: 'exactly the messages that failed are named' },
  { id: 'order-per-key', number: 6, promise: '16 keys with 1,000 messages each stay in order' },
  { id: 'order-parallel-publishers', number: 7, promise: '20 publishers at once, each its own key, stay in order' },
  { id: 'key-affinity', number: 8, promise: 'a key is never with two members at once' },
  { id: 'topic-isolation', number: 9, promise: '20 topics do not mix' },
  { id: 'groups-fan-out', number: 10, promise: 'each of 3 groups gets every message' },
  { id: 'competing-consumers', number: 11, promise: '10 members share 5,000 messages: none lost, none twice' },
  {
    id: 'start-position',
    number: 12,
    promise: 'a new group begins where it says (earliest, latest); one that exists goes on where it was',
  },
  { id: 'start-at-time', number: 12, promise: 'a new group begins at a time' },
  { id: 'no-ack-no-progress', number: 13, promise: 'what was not settled comes again' },
  { id: 'nack-redelivers', number: 14, promise: 'what was given back comes again in its place; what was put off, not before its time' },
  { id: 'ack-twice-ack-after-close', number: 20, promise: 'settling twice, or too late, changes nothing' },
  { id: 'inbox-once', number: 21, promise: 'an event delivered 5 times in parallel has one effect' },
  { id: 'graceful-close-drains', number: 22, promise: '1,000 in flight at the close: none lost, none that was settled comes again' },
  { id: 'close-bounded-idempotent', number: 23, promise: 'closing ends within 5 s, may be asked for twice, and lets the process exit' },
  { id: 'kill9-consumer', number: 24, promise: 'members killed with SIGKILL: none lost, order holds, repeats within the window in flight' },
  { id: 'kill9-producer', number: 25, promise: 'a producer killed with SIGKILL: all that was reported stored arrives, in order' },
  { id: 'contiguous-commit', number: 26, promise: 'settling out of order never passes an unfinished message' },
  { id: 'rebalance-storm', number: 27, promise: 'members 1, 3, 2, 5, 1 under load: none lost, order holds' },
  { id: 'broker-restart', number: 28, promise: 'a restart and a kill of the broker during 10,000 messages: none lost, order holds' },
  { id: 'tcp-cut-blackhole', number: 29, promise: 'reset, 30 s of black hole, half-open: none lost, nobody stuck' },
  {
    id: 'back-pressure',
    number: 30,
    promise: '50,000 messages of backlog and a 10 ms handler: in flight bounded, RSS grows by 64 MiB at most',
  },
  { id: 'payload-limit', number: 31, promise: 'a body of the limit passes, one byte more is refused before it is sent' },
  { id: 'names-validated', number: 32, promise: 'hostile names, keys and headers are refused, by the same errors everywhere' },
  { id: 'signals-match-ledger', number: 33, promise: 'lag is what the ledger says; down is said within 5 s, and up again' },
  { id: 'order-across-types', number: undefined, promise: 'order holds across two types of one key in a shared topic' },
  { id: 'acknowledges-handled', number: undefined, promise: 'where it says so: stored is said once every declared group has settled' },
  { id: 'deduplicates', number: undefined, promise: 'a message published twice with one id is stored once' },
] as const

/** A row of the matrix. */
export type TransportCheckId = (typeof TRANSPORT_CHECKS)[number]['id']

/** What one test of the contract came to. */
export interface TransportCheckResult {
  readonly check: TransportCheckId
  readonly test: string
  /** `undeclared`: the adapter does not claim it; `not run`: something was missing that the test needs. */
  readonly result: 'passed' | 'failed' | 'undeclared' | 'not run'
  /** The capability that is not declared, what was missing, the error, or what was measured. */
  readonly detail: string
}

/** A broker that the checks may stop, kill and cut off. */
export interface BrokerUnderTest {
  /** A transport that reaches the broker through `proxy`. */
  connect(observe?: Observe): Promise<Transport>
  readonly proxy: FaultProxy
  stop(mode: 'graceful' | 'kill'): Promise<void>
  /** Resolves once it answers again, with what it had kept. */
  start(): Promise<void>
  /** How another process gets there: a module that exports `connect(target): Promise<Transport>`, by its file URL. */
  readonly process?: { readonly module: string; readonly target: unknown }
}

export interface TransportContractOptions {
  /** Longest wait for something that must come. @default 20000 */
  readonly deadlineMs?: number
  /** How long nothing must come until "nothing more" is believed; used where no later message can tell. @default 100 */
  readonly quietMs?: number
  /** Largest body that the transport is set to take; without it that check is not run. */
  readonly messageMaxBytes?: number
  /** The broker that suffers, started with the first check that needs it; the caller stops it at the end. Without it those checks are not run. */
  readonly broker?: () => Promise<BrokerUnderTest>
  /** Longest that a group may need until it goes on after a fault: session timeouts included. @default 120000 */
  readonly recoveryMs?: number
  /** Only the tests of these rows. @default all */
  readonly only?: readonly TransportCheckId[]
  /** Told of each test. */
  readonly report?: (result: TransportCheckResult) => void
}

/** One check: what it promises, and how to see it. What it gives back stands in the report. */
export interface TransportCheck {
  readonly check: TransportCheckId
  readonly name: string
  /** The capability that it proves, where the transport does not declare it. */
  readonly requires?: (capabilities: Capabilities) => string | undefined
  run(bench: Bench, options: TransportContractOptions): Promise<string | void>
}

/** A check that hurts the broker. */
export interface BrokerCheck {
  readonly check: TransportCheckId
  readonly name: string
  readonly requires?: (capabilities: Capabilities) => string | undefined
  /** Whether it needs processes of its own. */
  readonly processes?: boolean
  run(broker: BrokerUnderTest, tools: BrokerCheckTools): Promise<string | void>
}

/** What a check gets that hurts the broker. */
export interface BrokerCheckTools {
  /** Names that no other check uses. */
  topic(): string
  group(): string
  /** Longest that a group may need until it goes on after a fault. */
  readonly recoveryMs: number
}

export const needsOrder = ({ ordering }: Capabilities): string | undefined => (ordering === 'key' ? undefined : 'ordering: key')
export const needsHandled = ({ acknowledges }: Capabilities): string | undefined =>
  acknowledges === 'handled' ? undefined : 'acknowledges: handled'
export const needsDelay = ({ delay }: Capabilities): string | undefined => (delay ? undefined : 'delay')
export const needsKeeping = ({ keeps = true }: Capabilities): string | undefined => (keeps ? undefined : 'keeps')
export const needsSharing = ({ shares = true, keeps = true }: Capabilities): string | undefined =>
  keeps ? (shares ? undefined : 'shares') : 'keeps'
export const needsOrderedSharing = (capabilities: Capabilities): string | undefined =>
  needsOrder(capabilities) ?? needsSharing(capabilities)
export const needsBroker = ({ survives = true }: Capabilities): string | undefined => (survives ? undefined : 'survives')
export const needsLastingBroker = (capabilities: Capabilities): string | undefined =>
  needsBroker(capabilities) ?? needsSharing(capabilities)
