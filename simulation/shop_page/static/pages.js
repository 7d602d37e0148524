/** The pages: what each shows, and what it tells Lotse. */

import { about, cart } from './cart.js'
import { price, t } from './language.js'
import { element, show } from './nodes.js'
import { picture } from './pictures.js'

const POPULAR = 2
const LISTED = 24

/** The pages of a shop with these products. Each: path -> title, nodes, and the event that it is; undefined where there is no such page. */
export function pagesOf({ categories, items }, go) {
  const find = (item) => items.find((one) => one.item === item)
  const of = (category) => items.filter((one) => one.category === category)
  const called = ({ name, category }) => `${name} · ${t(category)}`

  const card = (product) =>
    element('li', {}, element('a', { href: `/product/${product.item}`, class: 'card' }, picture(product),
      element('span', { class: 'name' }, product.name), element('span', { class: 'quiet' }, t(product.category)),
      element('span', { class: 'price' }, price(product.price))))
  const grid = (products) => element('ul', { class: 'grid' }, products.map(card))
  const popular = () => grid(categories.flatMap((one) => of(one).slice(0, POPULAR)))
  const heading = (text) => element('h1', { tabindex: -1 }, text)
  const link = (href, text, more = {}) => element('a', { href, ...more }, text)

  const home = () => ({
    title: t('home'),
    event: ['page_view'],
    nodes: [
      element('section', { class: 'hero' }, heading(t('claim')), element('p', {}, t('intro'))),
      element('ul', { class: 'tiles' }, categories.map((one) =>
        element('li', {}, link(`/category/${one}`, [picture(of(one)[3]), element('span', {}, t(one))], { class: 'tile' })))),
      element('h2', {}, t('popular')),
      popular(),
    ],
  })

  const category = (name) => categories.includes(name) && {
    title: t(name),
    event: ['view_item_list', { category: name }],
    nodes: [heading(t(name)), element('p', { class: 'quiet' }, t('products', { number: of(name).length })), grid(of(name).slice(0, LISTED))],
  }

  const product = (item) => {
    const one = find(item)
    if (!one) return undefined
    const add = element('button', { class: 'primary', onclick: () => {
      cart.add(one)
      said.textContent = t('added', one)
    } }, t('add'))
    const said = element('p', { role: 'status', class: 'said' })
    return {
      title: called(one),
      event: ['view_item', about(one)],
      nodes: [
        element('div', { class: 'product' }, picture(one), element('div', {},
          heading(one.name), element('p', { class: 'quiet' }, link(`/category/${one.category}`, t('from', { category: t(one.category) }))),
          element('p', { class: 'price large' }, price(one.price)), add, said)),
        element('h2', {}, t('more')),
        grid(of(one.category).filter((each) => each !== one).slice(0, 6)),
      ],
    }
  }

  const search = (words) => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean)
    const found = wanted.length ? items.filter((one) => wanted.every((word) => called(one).toLowerCase().includes(word))) : []
    return {
      title: t('search'),
      // the words stay here: there is no field for them
      event: ['search'],
      nodes: [
        heading(t('results', { words })),
        found.length ? grid(found.slice(0, LISTED)) : element('p', {}, t('nothing')),
      ],
    }
  }

  const sums = () =>
    element('dl', { class: 'sums' },
      element('dt', {}, t('shipping')), element('dd', {}, cart.shipping() ? price(cart.shipping()) : t('free')),
      element('dt', {}, t('total')), element('dd', { class: 'price' }, price(cart.value() + cart.shipping())))

  const cartPage = () => {
    const nodes = element('div')
    const fill = () =>
      cart.pieces()
        ? show(nodes, element('ul', { class: 'lines' }, cart.lines().map(({ product: one, quantity }) =>
          element('li', {}, picture(one), element('span', { class: 'name' }, link(`/product/${one.item}`, called(one)),
            element('span', { class: 'quiet' }, quantity > 1 ? t('quantity', { number: quantity }) : t('one'))),
          element('span', { class: 'price' }, price(one.price * quantity)),
          element('button', { 'aria-label': `${t('remove')}: ${called(one)}`, onclick: () => cart.remove(one) }, t('remove'))))),
        sums(), link('/checkout', t('checkout'), { class: 'button primary' }))
        : show(nodes, element('p', {}, t('emptyCart')), link('/', t('goOn'), { class: 'button' }))
    fill()
    return { title: t('cart'), event: ['view_cart', { value: cart.value() }], nodes: [heading(t('cart')), nodes], changed: fill }
  }

  const choice = (name, options) =>
    element('fieldset', {}, element('legend', {}, t(name)), options.map((option, place) =>
      element('label', {}, element('input', { type: 'radio', name, value: option, checked: !place }), t(option))))

  /** A step towards the purchase, which needs something in the cart. */
  const step = (title, event, options, note, action) => {
    if (!cart.pieces()) return cartPage()
    const sum = element('div', {}, sums())
    return {
      title: t(title),
      event: [event, { value: cart.value() }],
      nodes: [heading(t(title)), choice(...options), element('p', { class: 'quiet' }, t(note)), sum, action],
      changed: () => show(sum, sums()),
    }
  }

  const checkout = () =>
    step('checkout', 'begin_checkout', ['delivery', ['standard', 'express', 'pickup']], 'noAddress',
      link('/checkout/payment', t('toPayment'), { class: 'button primary' }))

  const payment = () =>
    step('payment', 'add_payment_info', ['payBy', ['invoice', 'card', 'cash']], 'noMoney',
      element('button', { class: 'primary', onclick: () => { spent = cart.buy(); go('/thanks') } }, t('buy')))

  let spent = 0
  // the purchase was the event: the page that thanks for it is none of its own
  const thanks = () => ({
    title: t('thanks'),
    nodes: [heading(t('thanks')), spent ? element('p', {}, t('bought', { value: price(spent) })) : '', link('/', t('again'), { class: 'button' }),
      element('h2', {}, t('popular')), popular()],
  })

  const aboutPage = () => ({
    title: t('about'),
    event: ['page_view'],
    nodes: [heading(t('aboutTitle')), ['about1', 'about2', 'about3'].map((key) => element('p', { class: 'text' }, t(key)))],
  })

  const lost = () => ({
    title: t('lost'), event: ['page_view'], nodes: [heading(t('lost')), element('p', {}, t('lostText')), link('/', t('again'), { class: 'button' })],
  })

  const fixed = { '/': home, '/about': aboutPage, '/cart': cartPage, '/checkout': checkout, '/checkout/payment': payment, '/thanks': thanks }
  return (path, words) => {
    const [, kind, name] = /^\/(category|product)\/([\w-]+)$/.exec(path) || []
    const found = path === '/search' ? search(words) : kind === 'category' ? category(name) : kind === 'product' ? product(name) : fixed[path]?.()
    return found || lost()
  }
}
