import { broker } from './redis.ts'
import { roadTests } from './road.ts'

roadTests(broker)
