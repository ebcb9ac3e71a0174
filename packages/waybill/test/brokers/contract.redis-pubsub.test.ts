import { brokerContract } from './contract.ts'
import { broker } from './redis-pubsub.ts'

brokerContract(broker, new URL('./redis-pubsub.ts', import.meta.url).href)
