// In Express 4 and 5, with a running service: tests/clients/test_express.py starts one and this.
import assert from 'node:assert/strict'
import { createServer, request as ask } from 'node:http'
import { once } from 'node:events'
import { randomUUID } from 'node:crypto'
import { describe, it } from 'node:test'
import { OpenFeature } from '@openfeature/server-sdk'
import { besideBrowser, lotse } from '../dist/index.js'
import { openFeature } from '../dist/openfeature.js'
import { AGENT, serving, service, shopOf, until, versions } from './shop.mjs'

assert.ok(process.env.LOTSE_URL, 'these tests need a running service: pytest tests/clients/test_express.py')

const FULL = 'measure,link,personalise'
const eventsOf = async (token) => (await service(`/v1/sessions/${token}`)).events
const cookieOf = (response) => response.headers.getSetCookie().find((one) => one.startsWith('lotse='))
const sent = (cookie) => ({ cookie: cookie.split(';')[0] })
const heldOf = async (visitor) => (await service('/v1/visitors/export', { visitor })).records

for (const [version, express] of Object.entries(versions)) {
  describe(`Express ${version}`, () => {
    const inShop = (test, options, behind) => serving(shopOf(express, options, behind), test)

    it('a page has the scores, the flags and the session of its visitor', () =>
      inShop(async (get) => {
        const page = await (await get('/')).json()
        assert.equal(page.reason, 'ok')
        assert.deepEqual(Object.keys(page.scores).sort(), ['bounce', 'conversion', 'exit'])
        assert.ok(Object.values(page.scores).every((score) => score >= 0 && score <= 1))
        assert.equal(page.flags.price.value, 1.5)
        assert.equal(await eventsOf(page.session), 1)
      }))

    it('without consent there is no cookie, and each page is a visitor', () =>
      inShop(async (get) => {
        const [one, other] = [await get('/'), await get('/')]
        assert.equal(cookieOf(one), undefined)
        const [first, second] = [await one.json(), await other.json()]
        assert.notEqual(first.session, second.session)
        assert.equal(await eventsOf(second.session), 1)
      }))

    it('with consent to link a cookie knows the visitor again, and is set once', () =>
      inShop(async (get) => {
        const first = await get('/', { 'x-consent': FULL })
        const cookie = cookieOf(first)
        assert.match(cookie, /^lotse=(\d+-){3}\d+\.measure\.link\.personalise; Max-Age=33696000; Path=\/; Expires=[^;]+; HttpOnly; SameSite=Lax$/)
        const page = await first.json()
        assert.equal(page.flags.help_offer.value, 'none')
        const second = await get('/sale', { 'x-consent': FULL, ...sent(cookie) })
        assert.equal(cookieOf(second), undefined)
        const next = await second.json()
        assert.equal(next.session, page.session)
        assert.equal(next.flags.help_offer.value, 'chat')
        // other purposes are another text, of the same visitor
        const third = await get('/', { 'x-consent': 'measure,link', ...sent(cookie) })
        assert.equal(sent(cookieOf(third)).cookie, sent(cookie).cookie.replace('.personalise', ''))
        assert.equal(await eventsOf(page.session), 3)
      }))

    it('the cookie goes over TLS only where the page came so', () =>
      inShop(async (get) => {
        assert.doesNotMatch(cookieOf(await get('/', { 'x-consent': FULL })), /Secure/)
        const proxied = shopOf(express)
        proxied.app.set('trust proxy', 'loopback')
        await serving(proxied, async (get) => {
          assert.match(cookieOf(await get('/', { 'x-consent': FULL, 'x-forwarded-proto': 'https' })), /; Secure/)
        })
      }))

    it('who withdraws loses the cookie, and the service forgets the visitor', () =>
      inShop(async (get) => {
        const first = await get('/', { 'x-consent': FULL })
        const cookie = cookieOf(first)
        const visitor = sent(cookie).cookie.slice(6).split('.')[0]
        assert.equal((await heldOf(visitor)).length, 1)
        const second = await get('/', { 'x-consent': 'measure', ...sent(cookie) })
        assert.match(cookieOf(second), /^lotse=; Max-Age=0; Path=\/;.*HttpOnly/)
        const page = await second.json()
        assert.equal(page.reason, 'ok')
        assert.notEqual(page.session, (await first.json()).session)
        await until(async () => (await heldOf(visitor)).length === 0)
      }))

    for (const header of ['sec-gpc', 'dnt']) {
      it(`${header} narrows what was consented to, and withdraws what was held`, () =>
        inShop(async (get) => {
          const objected = await get('/', { 'x-consent': FULL, [header]: '1' })
          assert.equal(cookieOf(objected), undefined)
          const cookie = cookieOf(await get('/', { 'x-consent': FULL }))
          assert.match(cookieOf(await get('/', { 'x-consent': FULL, [header]: '1', ...sent(cookie) })), /Max-Age=0/)
        }))
    }

    it("a shop's own id knows a visitor without a cookie", () =>
      inShop(async (get) => {
        const account = { 'x-account': randomUUID() }
        const pages = [await get('/', account), await get('/', account)]
        assert.ok(pages.every((page) => cookieOf(page) === undefined))
        const [first, second] = await Promise.all(pages.map((page) => page.json()))
        assert.equal(second.session, first.session)
      }))

    it('a cookie of another form names nobody', () =>
      inShop(async (get) => {
        const account = randomUUID()
        const theirs = await (await get('/', { 'x-account': account })).json()
        const page = await get('/', { 'x-consent': FULL, cookie: `lotse=${account}.measure.link` })
        assert.match(cookieOf(page), /^lotse=(\d+-){3}\d+\./)
        assert.notEqual((await page.json()).session, theirs.session)
        assert.equal(await eventsOf(theirs.session), 1)
      }))

    it('nothing is sent of files, programs, and pages in advance; a form is no page', () =>
      inShop(async (get, shop) => {
        const cases = [
          ['/shop.css', {}], ['/', { 'user-agent': 'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)' }],
          ['/', { 'sec-purpose': 'prefetch;prerender' }], ['/', { purpose: 'prefetch' }],
        ]
        for (const [path, headers] of cases) assert.equal((await (await get(path, headers)).json()).reason, 'skipped', path)
        const asked = [[{ accept: '*/*' }, {}], [{ 'sec-fetch-dest': 'iframe' }, {}], [{}, { method: 'POST' }]]
        for (const [headers, more] of asked) assert.equal((await (await get('/cart', headers, more)).json()).reason, 'no_event')
        assert.deepEqual(shop.counts.requests, { skipped: 4, no_event: 3 })
      }))

    it('what else happens is sent behind the response', () =>
      inShop(async (get, shop) => {
        const account = { 'x-account': randomUUID() }
        const page = await (await get('/', account)).json()
        assert.equal((await (await get('/cart', account, { method: 'POST' })).json()).reason, 'no_event')
        await until(async () => (await eventsOf(page.session)) === 2)
        const { records } = await service('/v1/visitors/export', { visitor: account['x-account'] })
        assert.match(JSON.stringify(records), /"cart_adds":\s*1\b/)
        await until(() => shop.counts.sent === 1 && shop.counts.waiting === 0)
      }))

    it('a route says what its page is beside a page view', () =>
      inShop(async (get) => {
        const page = await (await get('/product/sku-7')).json()
        assert.equal(page.reason, 'ok')
        assert.equal(await eventsOf(page.session), 2)
      }))

    it('an event of another name, several, or none', () =>
      inShop(
        async (get) => {
          const [named, several, none] = await Promise.all(['/named', '/several', '/none'].map(async (path) => (await get(path)).json()))
          assert.equal(named.reason, 'ok')
          assert.equal(await eventsOf(several.session), 2)
          assert.equal(none.reason, 'no_event')
        },
        {
          event: ({ path }) =>
            path === '/none' ? null : path === '/named' ? { name: 'view_cart' } : [{}, { name: 'view_item', item: 'sku-1' }],
        },
      ))

    it('a page without consent to anything at all is told to nobody', () =>
      inShop(
        async (get, shop) => {
          assert.equal((await (await get('/')).json()).reason, 'no_consent')
          await get('/cart', {}, { method: 'POST' })
          assert.deepEqual([shop.counts.waiting, shop.counts.sent], [0, 0])
        },
        { consent: () => null },
      ))

    it('functions of the shop that fail do not fail its pages', async () => {
      const fails = () => {
        throw new Error('no such manager')
      }
      for (const name of ['consent', 'visitor', 'event', 'skip']) {
        const told = []
        await inShop(
          async (get) => {
            const page = await get('/')
            assert.equal(page.status, 200)
            assert.notEqual((await page.json()).reason, 'ok')
          },
          { [name]: fails, warn: (message) => told.push(message) },
        )
        assert.deepEqual(told, ['lotse: a function of the options failed: no such manager'])
      }
    })

    it('an event that is refused is dropped alone, and told without what was in it', async () => {
      const told = []
      const account = randomUUID()
      await inShop(async (get, shop) => {
        const page = await (await get('/', { 'x-account': account })).json()
        assert.equal(page.reason, 'ok')
        await get('/odd', { 'x-account': account }, { method: 'POST' })
        await until(() => shop.counts.refused === 2 && shop.counts.sent === 1)
        assert.equal(await eventsOf(page.session), 2)
      }, { warn: (message) => told.push(message) })
      assert.ok(told.some((message) => /refused: .*price/.test(message)), told.join())
      assert.ok(!told.join().includes(account))
    })

    it("flags are the shop's own value where they are of another type, or not there", () =>
      inShop(
        async (get) => assert.equal((await get('/')).status, 200),
        {},
        [
          (request, _, next) => {
            const { lotse: of } = request
            assert.equal(of.flag('price', 0), 1.5)
            assert.equal(of.flag('price', 'free'), 'free')
            assert.equal(of.flag('other', 'mine'), 'mine')
            assert.equal(of.flag('constructor', 'mine'), 'mine')
            assert.deepEqual(of.flag('links', {}), { more: ['a', 'b'] })
            next()
          },
        ],
      ))

    it('of one visitor seven pages ask at the same time: the service knows no more events again', async () => {
      const waiting = []
      const slow = createServer((request, response) => {
        request.resume()
        if (request.method === 'POST') waiting.push(response)
        else response.end()
      }).listen(0, '127.0.0.1')
      await once(slow, 'listening')
      const answer = { status: 'folded', events: 1, session: 'token', scores: {} }
      const answered = () => waiting.splice(0).forEach((response) => response.setHeader('content-type', 'application/json').end(JSON.stringify(answer)))
      const url = `http://127.0.0.1:${slow.address().port}`
      await serving(shopOf(express, { url, timeoutMs: 20_000 }), async (get) => {
        const known = { 'x-consent': FULL, 'x-account': 'jane' }
        const pages = Array.from({ length: 7 }, () => get('/', known))
        await until(() => waiting.length === 7)
        assert.equal((await (await get('/', known)).json()).reason, 'unavailable')
        const other = get('/', { ...known, 'x-account': 'john' })
        await until(() => waiting.length >= 8)
        answered()
        for (const page of [...pages, other]) assert.equal((await (await page).json()).reason, 'ok')
        const next = get('/', known)
        await until(() => waiting.length)
        const telling = setInterval(answered, 20)
        assert.equal((await (await next).json()).reason, 'ok')
        await until(() => !waiting.length)
        clearInterval(telling)
      })
      slow.closeAllConnections()
      slow.close()
    })

    it('OpenFeature knows the session of each request', () => {
      const flags = OpenFeature.getClient(`express ${version}`)
      const { shop } = shopOf(express)
      const app = express()
      app.use(shop, openFeature(shop, { domain: `express ${version}`, context: () => ({ country: 'DE' }) }))
      app.get(/.*/, async (request, response) => {
        await new Promise((resolve) => setTimeout(resolve, 5))
        const found = [await flags.getStringValue('help_offer', 'default'), await flags.getNumberValue('local_price', 0)]
        response.json([...found, await flags.getStringValue('unknown', 'default'), request.lotse.flag('help_offer', 'default')])
      })
      return serving({ app, shop }, async (get) => {
        const account = { 'x-account': randomUUID() }
        const pages = await Promise.all([get('/', account), get('/')])
        for (const page of pages) assert.deepEqual(await page.json(), ['none', 2.5, 'default', 'none'])
        assert.deepEqual(await (await get('/', account)).json(), ['chat', 2.5, 'default', 'chat'])
      })
    })

    it('nothing goes out but what the service may know', async () => {
      const canaries = ['jane@example.org', '203.0.113.7', AGENT, 'secret-query', 'inbox']
      const passed = []
      const recorder = createServer(async (incoming, outgoing) => {
        const parts = []
        for await (const part of incoming) parts.push(part)
        passed.push(incoming.url + JSON.stringify(incoming.headers) + Buffer.concat(parts))
        const { method, headers, url } = incoming
        const onward = ask(new URL(url, process.env.LOTSE_URL), { method, headers }, (answer) => {
          outgoing.writeHead(answer.statusCode, answer.headers)
          answer.pipe(outgoing)
        })
        onward.end(Buffer.concat(parts))
      }).listen(0, '127.0.0.1')
      await once(recorder, 'listening')
      const headers = { 'x-forwarded-for': '203.0.113.7', referer: 'https://mail.example/inbox?q=jane@example.org', 'sec-gpc': '1' }
      await inShop(
        async (get, shop) => {
          const page = await (await get('/sale?q=secret-query&utm_medium=cpc&utm_campaign=spring', headers)).json()
          assert.equal(page.reason, 'ok')
          await get('/cart?q=secret-query', headers, { method: 'POST' })
          await until(() => shop.counts.sent === 1)
        },
        { url: `http://127.0.0.1:${recorder.address().port}` },
      )
      recorder.close()
      const all = passed.join('\n')
      for (const canary of canaries) assert.ok(!all.includes(canary), canary)
      assert.match(all, /"page":"http:\/\/127\.0\.0\.1:\d+\/sale\?utm_medium=cpc&utm_campaign=spring","device":"desktop","referrer":"https:\/\/mail\.example"/)
      assert.match(all, /"sec-gpc":"1"/)
    })
  })
}

it('beside the browser client the server speaks in the name of its visitor, and of nobody else', () =>
  serving(shopOf(versions[5], besideBrowser()), async (get, shop) => {
    const id = '12-34-56-' + Math.floor(Math.random() * 2 ** 32)
    await service('/v1/events', { visitor: id, name: 'page_view', consent: ['measure', 'link'] })
    const known = await get('/', { cookie: `lotse=${id}.measure.link` })
    assert.equal(cookieOf(known), undefined)
    assert.equal((await known.json()).reason, 'no_event')
    await get('/cart', { cookie: `lotse=${id}.measure.link` }, { method: 'POST' })
    await until(async () => /"cart_adds":\s*1\b/.test(JSON.stringify(await heldOf(id))))
    assert.equal((await (await get('/')).json()).reason, 'no_consent')
    await get('/cart', {}, { method: 'POST' })
    assert.equal(shop.counts.waiting, 0)
  }))

it('wrong options are refused at the start, by name', () => {
  const good = { url: 'http://localhost:3000' }
  const cases = [
    [{}, 'url'], [{ url: 'localhost' }, 'url'], [{ ...good, key: 'lotse_pub_abc' }, 'key'], [{ ...good, timeoutMs: 0 }, 'timeoutMs'],
    [{ ...good, timeout: 30 }, 'timeout'], [{ ...good, flags: 'some' }, 'flags'], [{ ...good, cookie: 'a b' }, 'cookie'],
    [{ ...good, consent: ['measure'] }, 'consent'], [{ ...good, queueLimit: '10' }, 'queueLimit'], [{ ...good, skip: '/x' }, 'skip'],
  ]
  for (const [options, name] of cases) assert.throws(() => lotse(options), new RegExp(`^TypeError: lotse: option ${name}: found`), name)
  assert.throws(() => lotse({ ...good, key: 'lotse_pub_abc' }), (error) => !error.message.includes('abc'))
})
