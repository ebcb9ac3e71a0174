export { pulsarTransport } from './adapters/pulsar/transport.ts'
export { pulsarSettings, type PulsarSubscriptionType, type PulsarTransportOptions } from './adapters/pulsar/options.ts'
export type {
  PulsarClientSubscriptionType,
  PulsarConsumerConfig,
  PulsarConsumerLike,
  PulsarIncomingLike,
  PulsarLike,
  PulsarMessageIdLike,
  PulsarMessageIdsLike,
  PulsarOutgoing,
  PulsarProducerConfig,
  PulsarProducerLike,
  PulsarReaderConfig,
  PulsarReaderLike,
} from './adapters/pulsar/pulsar-like.ts'
export { groupOfSubscription, pulsarTopicName, subscriptionName, topicOfPulsarName, type TopicHome } from './adapters/pulsar/names.ts'
