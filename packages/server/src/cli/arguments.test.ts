import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseFlags } from './arguments.ts'
import { suggestion } from './suggest.ts'

const SPECS = {
  data: { help: '', value: 'FILE' },
  id: { help: '', value: 'ROW', multiple: true },
  json: { help: '' },
  help: { help: '', short: 'h' },
}

test('options are read by name, with = or without, switches and repeated ones too', () => {
  const flags = parseFlags(['--data', 'a.csv', '--id=1', '--id', '-2', '--json', '-h'], SPECS)
  assert.equal(flags.text('data'), 'a.csv')
  assert.deepEqual(flags.texts('id'), ['1', '-2'])
  assert.deepEqual([flags.on('json'), flags.on('help')], [true, true])
  assert.deepEqual(
    [parseFlags([], SPECS).text('data'), parseFlags([], SPECS).on('json'), parseFlags([], SPECS).texts('id')],
    [undefined, false, []],
  )
})

test('wrong usage is one error that names the option', () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--dat', 'x'], /unknown option; did you mean "--data"\? \(got "--dat"/],
    [['-x'], /unknown option .*got "-x"/],
    [['--toString'], /unknown option/],
    [['--data'], /--data needs a value/],
    [['--data='], /--data needs a value/],
    [['--json=yes'], /--json takes no value/],
    [['--data', 'a', '--data', 'b'], /--data was given twice/],
    [['stray'], /unexpected argument .*got "stray"/],
    [['--', 'stray'], /unexpected argument/],
  ]
  for (const [args, message] of cases)
    assert.throws(
      () => parseFlags(args, SPECS),
      (error: Error & { code?: string }) => error.code === 'INVALID_SETTING' && message.test(error.message),
    )
})

test('a number is whole and within its limits', () => {
  const integer = (text: string): number | undefined => parseFlags(['--data', text], SPECS).integer('data', 0, 100)
  assert.deepEqual([integer('0'), integer('100'), integer('007')], [0, 100, 7])
  for (const text of ['-1', '101', '1.5', 'NaN', 'x', '1e2', ' 5', '0x10', '99999999999999999999']) {
    assert.throws(() => integer(text), /--data is not usable \(got .*a whole number from 0 to 100/)
  }
})

test('a choice is one of those allowed', () => {
  const choice = (text: string): string | undefined => parseFlags(['--data', text], SPECS).oneOf('data', ['pending', 'parked'])
  assert.equal(choice('parked'), 'parked')
  assert.throws(() => choice('parkd'), /did you mean "parked"\? \(got "parkd"; allowed: pending, parked\)/)
})

test('a suggestion is made for what is near, and none for what is not', () => {
  const known = ['demo', 'migrate', 'outbox ls']
  assert.deepEqual(
    ['dmeo', 'migrat', 'outbox', 'xyz', ''].map((got) => suggestion(got, known)),
    ['; did you mean "demo"?', '; did you mean "migrate"?', '; did you mean "outbox ls"?', '', ''],
  )
})

test('a length of time is a number with a unit', () => {
  const specs = { 'older-than': { value: 'TIME', help: '' } }
  const read = (value: string): number | undefined => parseFlags(['--older-than', value], specs).duration('older-than')
  assert.deepEqual(['500ms', '90s', '10m', '2h', '1d'].map(read), [500, 90_000, 600_000, 7_200_000, 86_400_000])
  for (const wrong of ['10', 'm', '-1s', '1.5h', '1 d', '1w', '9999999999s'])
    assert.throws(() => read(wrong), /--older-than is not usable.*allowed: a length of time: 90s, 10m, 2h, 1d/, wrong)
  assert.equal(parseFlags([], specs).duration('older-than'), undefined)
})

test('an argument without a name is a value of the option that the command says, as often as that one may be given', () => {
  const specs = { row: { value: 'ROW', help: '', multiple: true }, one: { value: 'ONE', help: '' } }
  assert.deepEqual(parseFlags(['5', '--row', '6', '7'], specs, 'row').texts('row'), ['5', '6', '7'])
  assert.equal(parseFlags(['5'], specs, 'one').text('one'), '5')
  assert.throws(() => parseFlags(['5', '6'], specs, 'one'), /one argument too many.*allowed: one ONE/)
  assert.throws(() => parseFlags(['5'], specs), /unexpected argument/)
})
