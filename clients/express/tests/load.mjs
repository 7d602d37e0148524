// The shop as a process of its own, for tests that kill the service under it: prints its port, tells at /_report how long
// pages have waited at most and how late this process's own timers were meanwhile. Options: LOTSE_OPTIONS, as JSON.
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import express from 'express'
import { lotse } from '../dist/index.js'

const consent = (request) => (request.get('x-consent') ?? '').split(',').filter(Boolean)
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
let waits = []

const app = express()
const shop = lotse({ url: process.env.LOTSE_URL, key: process.env.LOTSE_KEY, consent, ...JSON.parse(process.env.LOTSE_OPTIONS ?? '{}') })
app.get('/_report', (_, response) => {
  const sorted = waits.sort((one, other) => one - other)
  const share = (part) => sorted[Math.floor(part * (sorted.length - 1))] ?? 0
  response.json({ pages: waits.length, median: share(0.5), p99: share(0.99), longest: share(1), late: delay.max / 1e6, ...shop.counts })
  waits = []
  delay.reset()
})
app.use((request, _, next) => {
  request.began = performance.now()
  next()
})
if (process.env.LOTSE_OFF !== 'true') app.use(shop)
app.use((request, _, next) => {
  waits.push(performance.now() - request.began)
  next()
})
app.get('/track', (request, response) => {
  for (let times = 0; times < 5; times++) request.lotse.track('view_item', { item: `sku-${times}` })
  response.json({ session: request.lotse.session })
})
app.get(/.*/, (request, response) => {
  const { scores, session, reason } = request.lotse ?? {}
  response.json({ scores, session, reason, offer: request.lotse?.flag('help_offer', 'mine') })
})
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
