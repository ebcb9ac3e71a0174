import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { type Environment, readSettings } from './environment.ts'
import { isWaybillError } from './errors.ts'

const read = (env: Environment) => readSettings(env)

/** An error of `code` whose message names the setting. */
const names =
  (setting: string, code = 'INVALID_SETTING') =>
  (error: unknown): boolean =>
    isWaybillError(error) && error.code === code && error.message.includes(setting)

suite('a setting', () => {
  test('that is empty or only spaces counts as not set, whatever it is read as', () => {
    for (const env of [{}, { NAME: undefined }, { NAME: '' }, { NAME: ' \t\n' }]) {
      const settings = read(env)
      assert.equal(settings.text('NAME'), undefined)
      assert.equal(settings.integer('NAME', 0, 1), undefined)
      assert.equal(settings.flag('NAME'), undefined)
      assert.equal(settings.oneOf('NAME', ['a']), undefined)
      assert.equal(settings.file('NAME'), undefined)
      assert.throws(
        () => settings.required('NAME', 'a URL'),
        (error) => names('NAME')(error) && (error as Error).message.includes('a URL'),
      )
    }
  })

  test('is read without the spaces around it', () => {
    const settings = read({ NAME: '  nats://a b \r\n', COUNT: ' 7 ' })
    assert.equal(settings.text('NAME'), 'nats://a b')
    assert.equal(settings.required('NAME', 'a URL'), 'nats://a b')
    assert.equal(settings.integer('COUNT', 0, 10), 7)
  })

  test('that is a number is a whole one between its limits', () => {
    for (const [text, value] of [
      ['0', 0],
      ['-5', -5],
      ['10', 10],
      ['007', 7],
    ] as const)
      assert.equal(read({ COUNT: text }).integer('COUNT', -5, 10), value)
    for (const text of ['-6', '11', '1.5', '1e1', '0x1', '1_0', '+1', '--1', 'NaN', 'Infinity', 'five', '1 0', '9'.repeat(400)])
      assert.throws(() => read({ COUNT: text }).integer('COUNT', -5, 10), names('COUNT'), text)
    assert.throws(() => read({ COUNT: '11' }).integer('COUNT', -5, 10), /got "11"; allowed: a whole number from -5 to 10/)
  })

  test('that is a flag knows eight words, in any case', () => {
    for (const yes of ['true', 'TRUE', '1', 'yes', 'On']) assert.equal(read({ FLAG: yes }).flag('FLAG'), true)
    for (const no of ['false', 'False', '0', 'NO', 'off']) assert.equal(read({ FLAG: no }).flag('FLAG'), false)
    for (const other of ['2', 'y', 'enabled', 'truee']) assert.throws(() => read({ FLAG: other }).flag('FLAG'), names('FLAG'))
  })

  test('that is one of several is given as the list spells it, and otherwise refused with the list', () => {
    const allowed = ['PLAIN', 'SCRAM-SHA-256'] as const
    assert.equal(read({ SASL: 'scram-sha-256' }).oneOf('SASL', allowed), 'SCRAM-SHA-256')
    assert.throws(() => read({ SASL: 'GSSAPI' }).oneOf('SASL', allowed), /SASL.*got "GSSAPI"; allowed: PLAIN, SCRAM-SHA-256/)
  })

  test('that names a file is read from there; what is no file is refused', (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'waybill-environment-'))
    context.after(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'ca.pem'), 'a certificate\n')
    assert.equal(read({ CA_PATH: join(folder, 'ca.pem') }).file('CA_PATH'), 'a certificate\n')
    for (const path of [join(folder, 'missing'), folder, 'a\u0000b'])
      assert.throws(() => read({ CA_PATH: path }).file('CA_PATH'), names('CA_PATH', 'INVALID_FILE'))
  })
})
