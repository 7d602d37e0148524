// lotse.session with what people listen with: RxJS, Redux-Saga, Node's events, for await.
import assert from 'node:assert/strict'
import { on, once } from 'node:events'
import { test } from 'node:test'
import { runSaga, eventChannel } from 'redux-saga'
import { call, take } from 'redux-saga/effects'
import { firstValueFrom, from, fromEvent } from 'rxjs'
import { bufferCount, filter, map, take as first, toArray } from 'rxjs/operators'
import { Session } from '../build/session.js'

const answer = (conversion) => ({ session: 't', status: 'folded', events: 1, scores: { conversion } })
const crossing = { head: 'conversion', threshold: 0.3, direction: 'up', score: 0.4, scores: { conversion: 0.4 } }

test('RxJS: fromEvent', async () => {
  const session = new Session()
  const risen = firstValueFrom(
    fromEvent(session, 'scores').pipe(
      map((event) => event.detail.scores.conversion),
      bufferCount(2, 1),
      filter(([before, now]) => now > before),
      first(1),
    ),
  )
  for (const score of [0.3, 0.2, 0.5]) session.tell('scores', answer(score))
  assert.deepEqual(await risen, [0.2, 0.5])
})

test('RxJS: from, as an async iterable', async () => {
  const session = new Session()
  const told = firstValueFrom(from(session).pipe(map((event) => event.type), first(2), toArray()))
  await null
  session.tell('scores', answer(0.1))
  session.tell('threshold', crossing)
  assert.deepEqual(await told, ['scores', 'threshold'])
})

test('Redux-Saga: eventChannel', async () => {
  const session = new Session()
  const channelOf = (type) =>
    eventChannel((emit) => {
      const listener = (event) => emit(event.detail)
      session.addEventListener(type, listener)
      return () => session.removeEventListener(type, listener)
    })
  const dispatched = []
  function* offers() {
    const channel = yield call(channelOf, 'threshold')
    while (dispatched.length < 2) {
      const { head, direction } = yield take(channel)
      dispatched.push({ type: 'threshold', head, direction })
    }
    channel.close()
  }
  const task = runSaga({ dispatch: (action) => dispatched.push(action) }, offers)
  session.tell('threshold', crossing)
  session.tell('threshold', { ...crossing, direction: 'down' })
  await task.toPromise()
  session.tell('threshold', crossing) // the channel is closed: nobody listens
  assert.deepEqual(dispatched.map((action) => action.direction), ['up', 'down'])
})

test('Node: events.on and events.once', async () => {
  const session = new Session()
  const stop = new AbortController()
  const told = on(session, 'scores', { signal: stop.signal })
  const crossed = once(session, 'threshold')
  session.tell('scores', answer(0.1))
  session.tell('scores', answer(0.2))
  session.tell('threshold', crossing)
  const scores = []
  try {
    for await (const [event] of told) {
      scores.push(event.detail.scores.conversion)
      if (scores.length === 2) stop.abort()
    }
  } catch (error) {
    assert.equal(error.name, 'AbortError')
  }
  assert.deepEqual(scores, [0.1, 0.2])
  assert.equal((await crossed)[0].detail.direction, 'up')
})

test('for await: everything in its order, and no listener is left behind', async () => {
  const session = new Session()
  let listeners = 0
  for (const [name, step] of [['addEventListener', 1], ['removeEventListener', -1]]) {
    const own = session[name].bind(session)
    session[name] = (...rest) => ((listeners += step), own(...rest))
  }
  const types = []
  const reading = (async () => {
    for await (const { type, detail } of session) {
      types.push(type)
      if (detail.direction === 'down') break
    }
  })()
  session.tell('scores', answer(0.4))
  session.tell('threshold', crossing)
  session.tell('idle', { idle_seconds: 5, scores: { conversion: 0.3 } })
  await new Promise((resolve) => setTimeout(resolve))
  session.tell('threshold', { ...crossing, direction: 'down' })
  await reading
  assert.deepEqual(types, ['scores', 'threshold', 'idle', 'threshold'])
  assert.equal(listeners, 0)
  assert.deepEqual(session.scores, { conversion: 0.4 })
})
