/** The shop starts: header and footer, pages that change without loading, Lotse's client, panel and offer. */

import { banner } from '/client/banner.mjs'
import { cart } from './cart.js'
import { flagsOf } from './flags.js'
import { language, other, t } from './language.js'
import { element, show } from './nodes.js'
import { offer } from './offer.js'
import { pagesOf } from './pages.js'
import { panel } from './panel.js'
import { begin, told } from './telling.js'

const at = (id) => document.getElementById(id)
const shop = await (await fetch('/shop.json')).json()
const lotse = begin(shop.collector, shop.thresholds)

/** A path with the language that was asked for, and the words that are searched. */
const address = (path, more = {}) => {
  const query = new URLSearchParams(more)
  const asked = new URLSearchParams(location.search).get('lang')
  if (asked) query.set('lang', asked)
  return path + (`${query}` && `?${query}`)
}

let open, shown
const words = () => new URLSearchParams(location.search).get('q') || ''
const pages = pagesOf(shop, (path) => go(path))

function render({ focus = true } = {}) {
  shown = location.pathname + location.search
  open = pages(location.pathname, words())
  document.title = `${open.title} – ${t('shop')}`
  show(at('main'), open.nodes)
  for (const link of at('header').querySelectorAll('nav a')) {
    if (link.pathname === location.pathname) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  scrollTo(0, 0)
  if (focus) at('main').querySelector('h1').focus({ preventScroll: true })
  if (open.event) told(...open.event)
  scrolled = false
}

function go(path, more) {
  history.pushState({}, '', address(path, more))
  render()
}

// once a page, as the simulated shop's tracker does
let scrolled = false
addEventListener('scroll', () => {
  const { scrollHeight } = document.documentElement
  if (scrolled || scrollY < 200 || (scrollY + innerHeight) / scrollHeight < 0.9) return
  scrolled = true
  told('scroll')
}, { passive: true })

document.documentElement.lang = language
document.querySelector('.skip').textContent = t('skip')
document.querySelector('.skip').href = '#main'

const pieces = element('span', { class: 'pieces' })
const field = element('input', { type: 'search', name: 'q', maxlength: 60, 'aria-label': t('searchFor'), placeholder: t('searchFor'), autocomplete: 'off' })
const form = element('form', { role: 'search', onsubmit: (event) => {
  event.preventDefault()
  go('/search', { q: field.value.trim() })
} }, field, element('button', {}, t('search')))
show(at('header'),
  element('a', { href: '/', class: 'logo' }, t('shop')), form,
  element('a', { href: '/cart', class: 'cart' }, t('cart'), pieces),
  element('a', { href: `?lang=${other}`, class: 'language', lang: other, hreflang: other }, t('language')),
  element('nav', { 'aria-label': t('menu') }, shop.categories.map((one) => element('a', { href: `/category/${one}` }, t(one)))))
show(at('footer'), element('p', {}, t('note')),
  element('p', {}, element('a', { href: '/about' }, t('about')), element('button', { class: 'plain', 'data-lotse-consent': true }, t('privacy'))))

cart.heard(() => {
  pieces.textContent = cart.pieces() || ''
  open.changed?.()
})

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="/"]')
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return
  event.preventDefault()
  go(link.pathname)
})
// not for the link that leads to the content, which is on the same page
addEventListener('popstate', () => location.pathname + location.search !== shown && render())

const seen = panel(at('panel'), lotse, shop)
const flags = flagsOf(shop.collector, lotse.session)
flags.heard((found) => seen.flags(found))
offer(at('offer'), flags)
banner(lotse, { lang: language })
render({ focus: false })
