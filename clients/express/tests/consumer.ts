// What a shop in TypeScript writes, checked by the compiler as a user's project does.
import express from 'express'
import { besideBrowser, lotse, type Options, type Purpose } from '@lotse/express'
import { openFeature } from '@lotse/express/openfeature'

const options: Options = {
  url: 'http://localhost:3000',
  flags: ['help_offer'],
  consent: async (request): Promise<Purpose[]> => (request.get('x') ? ['measure', 'link'] : []),
  event: ({ path }) => (path === '/health' ? null : [{}, { name: 'view_item', item: 'sku-1', price: 9.5 }]),
}
const shop = lotse(options)
const app = express()
app.use(shop, openFeature(shop, { domain: 'shop', context: () => ({ country: 'DE' }) }))
app.get('/', shop.page({ name: 'view_cart' }), (request, response) => {
  const offer: string = request.lotse.flag('help_offer', 'none')
  const risk: number | undefined = request.lotse.scores.bounce
  request.lotse.track('purchase', { value: 99.8, currency: 'EUR' })
  response.json({ offer, risk, reason: request.lotse.reason })
})
// @ts-expect-error no such purpose
lotse({ url: 'http://localhost:3000', consent: () => ['everything'] })
// @ts-expect-error no such detail
app.use((request) => request.lotse.track('purchase', { price: '9.5' }))
lotse({ url: 'http://localhost:3000', ...besideBrowser() })
const left: Promise<number> = shop.close()
export { left }
