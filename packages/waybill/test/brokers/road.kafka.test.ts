import { broker } from './kafka.ts'
import { roadTests } from './road.ts'

roadTests(broker)
