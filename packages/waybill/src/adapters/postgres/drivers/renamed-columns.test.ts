import assert from 'node:assert/strict'
import { test } from 'node:test'
import { namedAsAsked } from './renamed-columns.ts'

test('columns that the client has renamed are read by the names that the statement gives them', () => {
  for (const name of ['rowId', 'RowId', 'row-id'])
    assert.deepEqual(
      namedAsAsked(
        [
          { [name]: '1', n: 2 },
          { [name]: '3', n: 4 },
        ],
        'select t.id as row_id, n from t',
      ),
      [
        { row_id: '1', n: 2 },
        { row_id: '3', n: 4 },
      ],
    )
})

test('what the statement names so itself, or does not name, stays', () => {
  const quoted = [{ rowId: '1' }]
  assert.equal(namedAsAsked(quoted, 'select row_id as "rowId"'), quoted)
  const all = [{ rowId: '1' }]
  assert.equal(namedAsAsked(all, 'select * from t'), all)
  assert.deepEqual(namedAsAsked([], 'select row_id'), [])
})
