/** Numbers and names of the API as this view shows them. */

import { texts } from './journeys_texts.js'

export const STEPS = ['content', 'list', 'item', 'search', 'cart', 'checkout', 'purchase', 'cart add', 'cart remove',
  'wish list', 'shipping', 'payment', 'account', 'lead', 'other']

/** A value of the API in the chosen language; a value that a later release has is shown as it came. */
export function named({ t }, kind, value) {
  const key = `${kind === 'entry' ? 'step' : kind}.${value}`
  return key in texts.en ? t(key) : value
}

/** `item > cart add`, in the chosen language. */
export function namedSteps(context, steps) {
  return steps.map((step) => named(context, 'step', step)).join(' > ')
}

/** A trait such as `device: mobile` or `searched`. */
export function namedTrait(context, trait) {
  const [dimension, label] = trait.split(': ')
  return label === undefined
    ? named(context, 'trait', trait)
    : `${named(context, 'dimension', dimension)}: ${named(context, dimension, label)}`
}

/** A number of sessions; what is not told is a dash that says so to those who hear the page. */
export function count(context, value) {
  return shown(context, value, context.number(value, 0))
}

export function share(context, value, digits = 1) {
  return shown(context, value, context.percent(value, digits))
}

export function seconds(context, value) {
  return shown(context, value, context.seconds(value))
}

/** A day of the API, `2026-02-03`: it is one of UTC wherever this is read. */
export function namedDay(context, value) {
  const format = new Intl.DateTimeFormat(context.language, { dateStyle: 'medium', timeZone: 'UTC' })
  return shown(context, value, format.format(Date.parse(value)))
}

/** More or less than something else: with its sign. */
export function signed(context, value, format) {
  return shown(context, value, value > 0 ? `+${format(value)}` : format(value))
}

/** An interval. */
export function between(context, low, high, format) {
  const { element, t } = context
  return low === null || high === null
    ? shown(context, null, '')
    : element('span', { 'data-low': String(low), 'data-high': String(high) }, t('range', { low: format(low), high: format(high) }))
}

export function shown(context, value, text) {
  const { element, t } = context
  return value === null || value === undefined
    ? element('span', { class: 'untold', 'data-value': 'null', title: t('untold') }, element('span', { 'aria-hidden': 'true' }, '–'),
        element('span', { class: 'unseen' }, t('untold')))
    : element('span', { 'data-value': String(value) }, text)
}

/** A sentence whose numbers are nodes: `{name}` in the text is replaced by `values[name]`. */
export function sentence(context, key, values) {
  const marks = Object.fromEntries(Object.keys(values).map((name) => [name, `\u0001${name}\u0001`]))
  const parts = context.t(key, marks).split('\u0001')
  return context.element('p', { class: 'note' }, ...parts.map((part, place) => (place % 2 ? values[part] : part)))
}
