import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError } from './errors.ts'
import { checkFunction, checkInteger, checkNames } from './options.ts'

test('a whole number between its limits passes, anything else is refused with the option’s name', () => {
  for (const value of [1, 5, 10]) assert.equal(checkInteger(value, 'batchMax', 1, 10), value)
  for (const value of [0, 11, -1, 1.5, NaN, Infinity, '5', null, undefined, 5n]) {
    assert.throws(
      () => checkInteger(value, 'batchMax', 1, 10),
      (error) =>
        isWaybillError(error, 'INVALID_OPTION') &&
        error.where === 'batchMax' &&
        error.allowed === 'a whole number from 1 to 10' &&
        error.got !== undefined,
    )
  }
})

test('a function passes as it is, anything else is refused', () => {
  const handler = (): void => {}
  assert.equal(checkFunction(handler, 'handler'), handler)
  for (const value of [undefined, null, 'handler', {}, 7])
    assert.throws(
      () => checkFunction(value, 'handler'),
      (error) => isWaybillError(error, 'INVALID_OPTION') && error.where === 'handler',
    )
})

test('an option that does not exist is refused, with the names of those that do', () => {
  const options: { readonly url?: string; readonly leaseMs?: number } = { url: 'x' }
  const allowed = { url: true, leaseMs: true } as const
  checkNames(options, allowed, 'transport')
  checkNames({ ...options, leaseMs: undefined }, allowed, 'transport')
  for (const misspelt of ['urll', 'LeaseMs', 'toString', '__proto__'])
    assert.throws(
      () => checkNames({ ...options, [misspelt]: 'x' }, allowed, 'transport'),
      (error) =>
        isWaybillError(error, 'INVALID_OPTION') &&
        error.where === `transport.${misspelt}` &&
        error.got === JSON.stringify(misspelt) &&
        error.allowed === 'url, leaseMs',
    )
})
