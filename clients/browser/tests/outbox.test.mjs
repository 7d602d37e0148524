// The outbox against a real server that misbehaves: what was sent, when, and what came of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { outbox } from '../build/outbox.js'

const event = (id) => ({ visitor: 'v', name: 'click', id: `${id}`, time: 1, consent: [] })
const ids = (request) => request.events.map(({ id }) => id).join(' ')
const OK = { status: 200, body: { results: [{ session: 'token', status: 'folded', events: 1, scores: {} }] } }

/** Run with a server that answers with these in turn, the last for ever; null drops the connection. */
async function served(answers, run) {
  const requests = []
  const server = createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const answer = answers[Math.min(requests.length, answers.length - 1)]
    requests.push({ at: Date.now(), type: request.headers['content-type'], events: JSON.parse(Buffer.concat(chunks)) })
    if (!answer) return request.socket.destroy()
    response.writeHead(answer.status, answer.headers)
    response.end(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body || {}))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const answered = []
  const kept = []
  const box = outbox(
    `http://127.0.0.1:${server.address().port}/v1/events`, [], (answer) => answered.push(answer),
    (queue) => !!kept.push(queue.map(({ id }) => id).join(' ')), 5, 20,
  )
  const settled = async () => {
    while (kept.at(-1) !== '') await new Promise((resolve) => setTimeout(resolve, 5))
  }
  try {
    await run({ box, requests, answered, kept, settled })
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

test('events that come together go together, seven at most, in their order', () =>
  served([OK], async ({ box, requests, answered, settled }) => {
    const before = Date.now()
    for (let id = 1; id <= 9; id++) box.add([event(id)])
    await settled()
    assert.deepEqual(requests.map(ids), ['1 2 3 4 5 6 7', '8 9'])
    assert.match(requests[0].type, /^text\/plain/) // nothing that a browser would have to ask for first
    assert.ok(requests[0].events.every(({ sent_at }) => sent_at >= before))
    assert.equal(answered.at(-1).session, 'token')
  }))

test('what was not answered comes again with the same ids: 500, 429, 408, a lost answer, no JSON', () =>
  served([{ status: 500 }, { status: 429 }, { status: 408 }, null, { status: 200, body: '<html>' }, OK],
    async ({ box, requests, kept, settled }) => {
      box.add([event(1), event(2)])
      await settled()
      assert.deepEqual(requests.map(ids), Array(6).fill('1 2'))
      assert.deepEqual(kept, ['1 2', ''])
    }))

test('Retry-After is waited for, whatever happens meanwhile', () =>
  served([{ status: 429, headers: { 'retry-after': '1' } }, OK], async ({ box, requests, settled }) => {
    box.add([event(1)])
    await box.send()
    box.add([event(2)])
    await box.send()
    assert.equal(requests.length, 1)
    await settled()
    assert.deepEqual(requests.map(ids), ['1', '1 2'])
    assert.ok(requests[1].at - requests[0].at >= 900)
  }))

test('one bad event does not lose the others', () =>
  served([{ status: 422, body: { detail: 'event 1', errors: [{ index: 1, field: 'name' }] } }, OK],
    async ({ box, requests, settled }) => {
      box.add([event(1), event(2), event(3)])
      await settled()
      assert.deepEqual(requests.map(ids), ['1 2 3', '1 3'])
    }))

test('what is refused for good is not sent again', () =>
  served([{ status: 403, body: '<html>no</html>' }, OK], async ({ box, requests, settled }) => {
    box.add([event(1)])
    await settled()
    box.add([event(2)])
    await settled()
    assert.deepEqual(requests.map(ids), ['1', '2'])
  }))

test('a withdrawal forgets what was not sent and waits for what is under way', () =>
  served([{ status: 503 }, OK], async ({ box, requests, kept }) => {
    box.add([event(1)])
    const sent = box.send()
    await box.clear()
    assert.equal(requests.length, 1)
    await sent
    box.add([event(2)])
    while (requests.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(ids(requests[1]), '2')
    assert.deepEqual(kept.slice(0, 3), ['1', '', '2'])
  }))
