import { broker } from './nats.ts'
import { roadTests } from './road.ts'

roadTests(broker)
