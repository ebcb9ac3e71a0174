import { broker } from './pulsar.ts'
import { roadTests } from './road.ts'

roadTests(broker)
