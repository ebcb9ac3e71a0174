import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError, type WaybillErrorCode } from './errors.ts'
import { type PublishConfig, PublishStrategies, resolvePublishConfig } from './publish-config.ts'

test('presets are what their names promise', () => {
  assert.deepEqual(resolvePublishConfig('INTRA_BC_FAST', 'x'), { strategy: 'HYBRID_FAST', scope: 'INTRA_BC', timeoutMs: 50, priority: 5 })
  assert.deepEqual(resolvePublishConfig('INTER_BC_RELIABLE', 'x'), { strategy: 'ASYNC_ONLY', scope: 'INTER_BC' })
  assert.deepEqual(resolvePublishConfig('CRITICAL_HYBRID', 'x'), {
    strategy: 'HYBRID_RELIABLE',
    scope: 'INTER_BC',
    timeoutMs: 200,
    priority: 9,
  })
  assert.throws(() => Object.assign(PublishStrategies.INTRA_BC_FAST, { priority: 0 }), TypeError)
})

test('nothing is filled in: what is left out is another rule’s to say', () => {
  assert.deepEqual(resolvePublishConfig(undefined, 'x'), {})
  assert.deepEqual(resolvePublishConfig({ timeoutMs: 1 }, 'x'), { timeoutMs: 1 })
  assert.deepEqual(resolvePublishConfig({ timeoutMs: 600_000, priority: 0, strategy: 'SYNC_ONLY', scope: 'EXTERNAL' }, 'x'), {
    timeoutMs: 600_000,
    priority: 0,
    strategy: 'SYNC_ONLY',
    scope: 'EXTERNAL',
  })
})

test('wrong values are refused with what is allowed and where', () => {
  const cases: [unknown, WaybillErrorCode, string, RegExp][] = [
    ['EVENTUALLY', 'UNKNOWN_STRATEGY', 'call', /INTRA_BC_FAST, INTER_BC_RELIABLE, CRITICAL_HYBRID/],
    ['toString', 'UNKNOWN_STRATEGY', 'call', /CRITICAL_HYBRID/],
    [{ strategy: 'sync_only' }, 'UNKNOWN_STRATEGY', 'call.strategy', /SYNC_ONLY, ASYNC_ONLY, HYBRID_FAST, HYBRID_RELIABLE/],
    [{ strategy: 'constructor' }, 'UNKNOWN_STRATEGY', 'call.strategy', /HYBRID_FAST/],
    [{ scope: 'GALAXY' }, 'UNKNOWN_STRATEGY', 'call.scope', /INTRA_BC, INTER_BC, EXTERNAL/],
    [{ priority: 11 }, 'INVALID_OPTION', 'call.priority', /0 to 9/],
    [{ priority: 2.5 }, 'INVALID_OPTION', 'call.priority', /0 to 9/],
    [{ timeoutMs: -1 }, 'INVALID_OPTION', 'call.timeoutMs', /1 to 600000/],
    [{ timeoutMs: 0 }, 'INVALID_OPTION', 'call.timeoutMs', /1 to 600000/],
    [{ timeoutMs: NaN }, 'INVALID_OPTION', 'call.timeoutMs', /1 to 600000/],
    [{ timeoutMS: 5 }, 'INVALID_OPTION', 'call', /strategy, scope, timeoutMs, priority/],
    [null, 'INVALID_OPTION', 'call', /null/],
    [7, 'INVALID_OPTION', 'call', /7/],
  ]
  for (const [config, code, where, allowed] of cases) {
    assert.throws(
      () => resolvePublishConfig(config as PublishConfig, 'call'),
      (error) => isWaybillError(error, code) && error.where === where && allowed.test(error.message),
      JSON.stringify(config),
    )
  }
})
