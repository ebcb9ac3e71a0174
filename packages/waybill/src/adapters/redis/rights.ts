import { isWaybillError, messageOf } from '../../core/errors.ts'
import type { BrokerReport } from '../../core/transport.ts'
import type { RedisKeys } from './names.ts'

export interface RightsOptions {
  call(args: readonly string[]): Promise<unknown>
  readonly keys: RedisKeys
  /** Rejects where this user may not look for them. */
  allTopics(): Promise<readonly string[]>
}

/** A topic that is asked for to hear whether one may ask. */
export const PROBED = 'waybill.doctor'
const TRIED_MAX = 100

/**
 * What this user lacks to read and store under the prefix, as findings. Nothing is changed: the server looks at rights first, and then finds nothing
 * to be done, or a key of another kind.
 */
export async function missingRights({ call, keys, allTopics }: RightsOptions): Promise<BrokerReport['findings']> {
  const refusals = async (topic: string): Promise<readonly string[]> => {
    const key = keys.topic(topic)
    const asked = [
      ['EXISTS', key],
      ['XADD', key, 'NOMKSTREAM', '*', 'waybill', 'doctor'],
      ['EVAL', 'return 0', '1', key],
    ].map((args) =>
      call(args).then(
        () => [],
        // Whatever else it says, a replica or a full memory, has a finding of its own.
        (error: unknown) => (isWaybillError(error, 'ACCESS_DENIED') ? [messageOf(error)] : []),
      ),
    )
    return (await Promise.all(asked)).flat()
  }

  const [refusal] = await refusals(PROBED)
  if (refusal === undefined) return []
  // Rights may be given topic by topic: who has one of those that are there is not without.
  const topics = await allTopics().catch(() => [])
  for (const topic of topics.slice(0, TRIED_MAX)) if ((await refusals(topic)).length === 0) return []
  return [
    {
      level: 'error',
      text: `this user lacks rights to the keys of topics (${keys.topic('TOPIC')}): ${refusal}`,
      advice: `allow the user the keys ~${keys.prefix}:*, and the commands that read, write and run scripts (ACL SETUSER)`,
    },
  ]
}
