import { brokerContract } from './contract.ts'
import { broker } from './pulsar.ts'

brokerContract(broker, import.meta.resolve('./pulsar.ts'))
