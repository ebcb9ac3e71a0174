import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'

/** Where topics are: `persistent://{tenant}/{namespace}/`. */
export interface TopicHome {
  readonly persistence: 'persistent' | 'non-persistent'
  readonly tenant: string
  readonly namespace: string
}

const HOME_PART = /^[A-Za-z0-9_=:.-]{1,200}$/

/** A tenant or namespace, as Pulsar takes them. @throws WaybillError `INVALID_OPTION` */
export function checkHomePart(value: unknown, where: string): string {
  if (typeof value === 'string' && HOME_PART.test(value)) return value
  throw new WaybillError('INVALID_OPTION', `${where} is not usable`, {
    got: value,
    allowed: '1 to 200 letters, digits, "_", "-", "=", ":" and "."',
    where,
  })
}

/** The name at the broker: `persistent://public/default/order.OrderPlaced`. Our names are Pulsar's names. @throws WaybillError `INVALID_NAME` */
export function pulsarTopicName(topic: string, { persistence, tenant, namespace }: TopicHome): string {
  return `${persistence}://${tenant}/${namespace}/${checkTopic(topic)}`
}

/** The topic behind a name at the broker, of a partition too; undefined where it is none of this home's, or none that we could have made. */
export function topicOfPulsarName(name: string, { persistence, tenant, namespace }: TopicHome): string | undefined {
  const prefix = `${persistence}://${tenant}/${namespace}/`
  if (!name.startsWith(prefix)) return undefined
  return usable(name.slice(prefix.length).replace(/-partition-\d+$/, ''), checkTopic)
}

/** The name of one partition of a topic. */
export const partitionName = (name: string, index: number): string => `${name}-partition-${index}`

/**
 * The subscription of a group: its name with `~` for `/`, which would end a part of the path. No group has a `~`, so that it can be undone.
 * @throws WaybillError `INVALID_NAME`
 */
export const subscriptionName = (group: string): string => checkGroup(group).replaceAll('/', '~')

/** The group behind a subscription; one that somebody else has named stands for itself. */
export function groupOfSubscription(name: string): string {
  return usable(name.replaceAll('~', '/'), checkGroup) ?? name
}

function usable(name: string, check: (value: unknown) => string): string | undefined {
  try {
    return check(name)
  } catch (error) {
    if (isWaybillError(error)) return undefined
    throw error
  }
}
