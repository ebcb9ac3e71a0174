import { isWaybillError } from '../../core/errors.ts'
import { checkTopic } from '../../core/names.ts'

/** A topic's name at the broker: itself, since Kafka takes all that our names can hold. @throws WaybillError `INVALID_NAME` */
export function kafkaTopicName(topic: string): string {
  return checkTopic(topic)
}

/** The topic that a broker's topic carries; undefined where its name is none of ours (`__consumer_offsets`). */
export function topicOfKafkaName(name: string): string | undefined {
  try {
    return checkTopic(name)
  } catch (error) {
    if (isWaybillError(error, 'INVALID_NAME')) return undefined
    throw error
  }
}
