import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type ReplyTarget, createReplies } from './replies.ts'

const INBOX = '_INBOX.a.'

function recorder() {
  const seen: string[] = []
  const target: ReplyTarget = {
    onReply: (message, index) => seen.push(`reply ${index} ${Buffer.from(message.data).toString()}`),
    onLost: (why, index) => seen.push(`${why} ${index}`),
    onDenied: (error, index) => seen.push(`denied ${index} ${error.message}`),
  }
  return { seen, target }
}

const answer = (subject: string, text = '') => ({ subject, data: Buffer.from(text) })

suite('answers through one inbox', () => {
  test('each reaches who asked, once, in whatever order they come', () => {
    const { seen, target } = recorder()
    const replies = createReplies(INBOX, () => 0)
    const [first, second] = [replies.take(target, 0, 's', 1000)!, replies.take(target, 1, 's', 1000)!]
    replies.receive(answer(second, 'b'))
    replies.receive(answer(first, 'a'))
    replies.receive(answer(first, 'again'))
    assert.deepEqual(seen, ['reply 1 b', 'reply 0 a'])
    assert.equal(replies.open, 0)
    replies.cut()
  })

  test('one that comes late does not reach who asks in its place', () => {
    const { seen, target } = recorder()
    const replies = createReplies(INBOX, () => 0)
    const early = replies.take(target, 0, 's', 1000)!
    replies.receive(answer(early, 'a'))
    const later = replies.take(target, 1, 's', 1000)!
    assert.notEqual(later, early)
    replies.receive(answer(early, 'late'))
    assert.deepEqual(seen, ['reply 0 a'])
    replies.receive(answer(later, 'b'))
    assert.deepEqual(seen, ['reply 0 a', 'reply 1 b'])
  })

  test('what is no answer of ours reaches nobody', () => {
    const { seen, target } = recorder()
    const replies = createReplies(INBOX, () => 0)
    replies.take(target, 0, 's', 1000)
    for (const rest of ['m.1', '-1', '0.5', '1', '65536', '99999999999999999999', 'NaN', 'length']) replies.receive(answer(INBOX + rest))
    assert.deepEqual(seen, [])
    replies.cut()
  })

  test('a lost connection ends all of them, a refusal those of its subject', () => {
    const { seen, target } = recorder()
    const replies = createReplies(INBOX, () => 0)
    for (const [index, subject] of ['s', 't', 's', 'u'].entries()) replies.take(target, index, subject, 1000)
    replies.deny('s', new Error('no'))
    replies.cut()
    assert.deepEqual(seen, ['denied 0 no', 'denied 2 no', 'cut 1', 'cut 3'])
    assert.equal(replies.open, 0)
  })
})
