import { brokerContract } from './contract.ts'
import { broker } from './nats.ts'

brokerContract(broker, new URL('./nats.ts', import.meta.url).href)
