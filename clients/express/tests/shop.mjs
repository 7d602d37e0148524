// A shop of a few pages, as an Express app of either major version, with what the tests ask of it in headers:
// `x-consent: measure,link` is what the visitor has consented to, `x-account` the id that the shop's own session has.
import { once } from 'node:events'
import { createServer } from 'node:http'
import express5 from 'express'
import express4 from 'express4'
import { lotse } from '../dist/index.js'

export const versions = { 4: express4, 5: express5 }
export const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36'

const consent = (request) => (request.get('x-consent') ?? '').split(',').filter(Boolean)

// the service is this machine's and shares it with the tests: a page may wait longer than in production
export const OPTIONS = {
  url: process.env.LOTSE_URL, key: process.env.LOTSE_KEY, timeoutMs: 2000, consent, visitor: (request) => request.get('x-account'),
  signals: false,
}

/** The app; `behind`: what stands behind the middleware, `options` beside the usual ones. */
export function shopOf(express, options = {}, behind = []) {
  const app = express()
  const shop = lotse({ ...OPTIONS, ...options })
  const seen = (request) => ({ scores: request.lotse.scores, flags: request.lotse.flags, session: request.lotse.session, reason: request.lotse.reason })
  app.use(shop, ...behind)
  app.get('/product/:id', shop.page(({ params }) => ({ name: 'view_item', item: params.id })), (request, response) => response.json(seen(request)))
  app.post('/cart', (request, response) => {
    request.lotse.track('add_to_cart', { item: 'sku-1', price: 9.5 })
    response.json(seen(request))
  })
  app.post('/odd', (request, response) => {
    const cyclic = {}
    cyclic.item = cyclic
    request.lotse.track('view_item', { price: -1 })
    request.lotse.track('view_item', { colour: 'red' })
    request.lotse.track('view_item', { item: 'sku-1' })
    request.lotse.track('view_item', cyclic)
    request.lotse.track(undefined)
    response.json(seen(request))
  })
  app.get(/.*/, (request, response) => response.json(seen(request)))
  return { app, shop }
}

/** Serve an app while `test` runs; it is given what fetches a path as a browser does. */
export async function serving({ app, shop }, test) {
  const server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  const get = (path, headers = {}, more = {}) =>
    fetch(`http://127.0.0.1:${port}${path}`, { headers: { 'user-agent': AGENT, accept: 'text/html', ...headers }, ...more })
  try {
    return await test(get, shop)
  } finally {
    server.closeAllConnections()
    server.close()
    await shop.close()
  }
}

/** Ask the service itself. */
export async function service(path, body) {
  const response = await fetch(process.env.LOTSE_URL + path, {
    method: body ? 'POST' : 'GET', body: body && JSON.stringify(body), headers: { authorization: `Bearer ${process.env.LOTSE_KEY}` },
  })
  return response.json()
}

/** Ask again until it is so. */
export async function until(true_) {
  for (let tries = 0; tries < 400; tries++) {
    if (await true_()) return
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error('it did not come true')
}
