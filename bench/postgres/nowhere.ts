import type { Publisher } from 'waybill'

/** Takes everything at once, like a transport in memory that nobody listens to. */
export const nowhere: Publisher = {
  capabilities: { ordering: 'key', stopsKeyAtFailure: true, acknowledges: 'stored', delay: false },
  publish: async (messages) => messages.map(() => ({ kind: 'stored' })),
}
