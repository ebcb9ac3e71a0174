import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError } from '../../../core/errors.ts'
import { questionMarks } from './numbered-parameters.ts'

test('parameters become question marks, in the order of their places, as often as they stand there', () => {
  assert.deepEqual(questionMarks('select $2::text, $1, $2', ['a', 'b']), { text: 'select ?::text, ?, ?', bindings: ['b', 'a', 'b'] })
  assert.deepEqual(questionMarks('select $10', [1, 2, 3, 4, 5, 6, 7, 8, 9, 'ten']), { text: 'select ?', bindings: ['ten'] })
  assert.deepEqual(questionMarks('select 1', []), { text: 'select 1', bindings: [] })
})

test('what only looks like a parameter stays', () => {
  for (const text of [
    "select '$1', 'it''s $1'",
    'select "$1""$1"',
    "select E'\\'$1'",
    'select $$ $1 $$, $tag$ $1 $$ $tag$',
    'select 1 -- $1',
    'select /* $1 */ a$1',
  ])
    assert.deepEqual(questionMarks(text, []), { text, bindings: [] })
})

test("a question mark of the statement's own is escaped wherever it stands, and never touches a parameter", () => {
  assert.equal(
    questionMarks("select a ? 'b', '??' -- ?\n, $tag$?$tag$, \"?\"", []).text,
    "select a \\? 'b', '\\?\\?' -- \\?\n, $tag$\\?$tag$, \"\\?\"",
  )
  assert.equal(questionMarks('select a ?$1', ['x']).text, 'select a \\? ?')
  assert.equal(questionMarks('select a ?| $1', ['x']).text, 'select a \\?| ?')
})

test('what Knex would change, or what is missing, is refused', () => {
  assert.throws(
    () => questionMarks("select E'\\?'", []),
    (error) => isWaybillError(error, 'UNSUPPORTED'),
  )
  assert.throws(
    () => questionMarks('select $3', [1, 2]),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})
