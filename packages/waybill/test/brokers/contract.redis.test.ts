import { brokerContract } from './contract.ts'
import { broker } from './redis.ts'

brokerContract(broker, new URL('./redis.ts', import.meta.url).href)
