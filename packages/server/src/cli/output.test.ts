import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Output, createOutput, table } from './output.ts'

function capture(
  options: {
    readonly isTTY?: boolean
    readonly columns?: number
    readonly env?: Record<string, string>
    readonly hide?: readonly string[]
  } = {},
): { output: Output; stdout: () => string; stderr: () => string } {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY: options.isTTY ?? false,
    columns: options.columns ?? 80,
    write: (text: string) => (written[name] += text),
  })
  const output = createOutput({ stdout: stream('stdout'), stderr: stream('stderr'), env: options.env ?? {} }, () => options.hide ?? [])
  return { output, stdout: () => written.stdout, stderr: () => written.stderr }
}

test('results go to stdout, all else to stderr', () => {
  const { output, stdout, stderr } = capture()
  output.print('result')
  output.json({ a: 1 })
  output.note('remark')
  output.fail('broken')
  output.progress('half done')
  assert.equal(stdout(), 'result\n{"a":1}\n')
  assert.equal(stderr(), 'remark\nwaybill: broken\n')
})

test('an error is one line, whatever it was made of', () => {
  const { output, stderr } = capture()
  output.fail('first\n  second')
  assert.equal(stderr(), 'waybill: first second\n')
})

test('colour is for terminals, NO_COLOR forbids it, FORCE_COLOR asks for it', () => {
  const red = '\u001b[31mx\u001b[39m'
  assert.equal(capture({ isTTY: true }).output.paint('red', 'x'), red)
  assert.equal(capture().output.paint('red', 'x'), 'x')
  assert.equal(capture({ isTTY: true, env: { NO_COLOR: '1' } }).output.paint('red', 'x'), 'x')
  assert.equal(capture({ isTTY: true, env: { TERM: 'dumb' } }).output.paint('red', 'x'), 'x')
  assert.equal(capture({ env: { FORCE_COLOR: '1' } }).output.paint('red', 'x'), red)
})

test('the progress line is rewritten in place, never wraps, and gives way to other lines', () => {
  const { output, stderr } = capture({ isTTY: true, columns: 6, env: { NO_COLOR: '1' } })
  output.progress('123456789')
  output.note('remark')
  assert.equal(stderr(), '\r\u001b[2K12345\r\u001b[2Kremark\n')
})

test('a secret never gets through', () => {
  const { output, stdout, stderr } = capture({ hide: ['hunter2'] })
  output.print('with hunter2')
  output.json({ url: 'postgres://u:hunter2@h' })
  output.fail('hunter2 is wrong')
  assert.ok(!(stdout() + stderr()).includes('hunter2'))
})

test('a table lines up, numbers to the right', () => {
  assert.deepEqual(
    table(
      ['row', 'key'],
      [
        ['7', 'a'],
        ['1,024', 'bcd'],
      ],
    ),
    ['  row  key', '    7  a', '1,024  bcd'],
  )
})
