import type { Storage } from '../../core/stores.ts'

/** Broken on purpose: records what is handled in a transaction of its own. Where the handler's is rolled back, the event counts as handled all the same. */
export function withInboxOutsideTransaction(storage: Storage): Storage {
  return {
    ...storage,
    inbox: {
      ...storage.inbox,
      record: (_sql, handler, eventIds) => storage.database.transaction((own) => storage.inbox.record(own, handler, eventIds)),
    },
  }
}
