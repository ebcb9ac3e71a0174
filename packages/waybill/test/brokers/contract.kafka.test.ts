import { brokerContract } from './contract.ts'
import { broker } from './kafka.ts'

brokerContract(broker, import.meta.resolve('./kafka.ts'))
