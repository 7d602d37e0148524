// Not run: what a shop's own TypeScript sees of the package must type-check (npm test).
import { fromEvent } from 'rxjs'
import { init, type Crossing, type Lotse } from '@lotse/browser'
import { banner } from '@lotse/browser/banner'

export const lotse: Lotse = init({ collector: 'https://lotse.shop.example', thresholds: ['conversion:0.3'], hash: true })
banner(lotse, { lang: 'de' })

lotse.purchase({ value: 30, currency: 'EUR', items: [{ item: 'A', price: 10, quantity: 3 }] })
lotse.addToCart({ item: 'A' })
lotse.track('a name of our own', { value: 1 })
// @ts-expect-error: no such helper
lotse.addToBasket({})
// @ts-expect-error: no such field
lotse.viewItem({ sku: 'A' })

export const crossings = fromEvent<CustomEvent<Crossing>>(lotse.session, 'threshold')
lotse.session.addEventListener('scores', (event) => event.detail.scores.conversion?.toFixed(2))

export async function follow() {
  for await (const event of lotse.session) {
    if (event.type === 'threshold') console.log(event.detail.direction)
  }
}
