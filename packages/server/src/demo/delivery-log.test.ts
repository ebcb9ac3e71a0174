import assert from 'node:assert/strict'
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openDeliveryLog, readDeliveryLogs } from './delivery-log.ts'

const root = mkdtempSync(join(tmpdir(), 'waybill-delivery-log-'))
after(() => rmSync(root, { recursive: true }))

test('the logs of processes that worked at the same time are read in the order in which things came, without a line that was cut off', () => {
  const folder = mkdtempSync(join(root, 'run-'))
  using first = openDeliveryLog(folder, 0)
  using second = openDeliveryLog(folder, 10)
  first.append('a', '1')
  second.append('b', '2')
  first.append('a', '3')
  second.append('b', '4')
  appendFileSync(join(folder, 'deliveries-10.log'), 'b\t5')
  assert.deepEqual(
    readDeliveryLogs(folder, (handler) => handler.toUpperCase()),
    [
      { consumer: 'A', eventId: '1' },
      { consumer: 'B', eventId: '2' },
      { consumer: 'A', eventId: '3' },
      { consumer: 'B', eventId: '4' },
    ],
  )
  assert.throws(() => openDeliveryLog(folder, 0), /EEXIST/)
})
