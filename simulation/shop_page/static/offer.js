/** The help that the flag `help_offer` has the shop offer: once, to be taken or not; it does not go away by itself. */

import { cart } from './cart.js'
import { t } from './language.js'
import { element, show } from './nodes.js'

export function offer(place, flags) {
  let made = false

  const close = () => show(place)
  const take = () => {
    cart.take()
    show(place, element('p', { class: 'offer taken' }, t('offerTaken')))
    setTimeout(close, 6000)
  }
  flags.heard((found) => {
    const help = found.find(({ key }) => key === 'help_offer')
    if (made || help?.value !== 'free_shipping') return
    made = true
    show(place, element('section', { class: 'offer', 'aria-labelledby': 'offer-title' },
      element('h2', { id: 'offer-title' }, t('offerTitle')), element('p', {}, t('offerText')),
      element('div', { class: 'actions' }, element('button', { class: 'primary', onclick: take }, t('offerYes')),
        element('button', { onclick: close }, t('offerNo')))))
  })
}
