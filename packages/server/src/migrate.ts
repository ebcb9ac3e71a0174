import type { Command } from './cli/command.ts'
import { DATABASE_FLAGS, openNamed } from './cli/storage.ts'

/** `waybill migrate`: brings the tables to this version. */
export const migrateCommand: Command = {
  name: 'migrate',
  summary: 'create or update the tables of Waybill in a database',
  description: [
    'Brings the tables to the version that this command belongs to: waybill_outbox, waybill_lease, waybill_relay,',
    'waybill_inbox, waybill_inbox_attempt, waybill_dead_letter and waybill_migration. Installs the function',
    'waybill_append. Safe to run again, and by several processes at once.',
  ],
  flags: DATABASE_FLAGS,
  async run(input) {
    const { flags, output } = input
    const storage = await openNamed(input, { create: true })
    try {
      const applied = await storage.migrate()
      if (flags.on('json')) output.json({ applied })
      else if (applied.length === 0) output.print('Nothing to do: the tables are up to date.')
      else for (const name of applied) output.print(`applied ${name}`)
      return 0
    } finally {
      await storage.close()
    }
  },
}
