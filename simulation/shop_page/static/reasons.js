/** Why a score is what it is: what the features add to it, in words. */

import { clock, count, language, percent, price, t } from './language.js'
import { element, show } from './nodes.js'
import { VALUES, WORDS } from './words.js'

const SHOWN = 5

/** The explanations of the session as of now, and its scores; undefined if there are none. */
export async function explained(collector, token) {
  const response = await fetch(`${collector}/v1/sessions/${token}?explain=true`, { credentials: 'omit' }).catch(() => undefined)
  return response?.ok ? response.json() : undefined
}

export function reasonsOf({ features, codes }) {
  const list = element('ol', { class: 'reasons' })

  /** What a feature is called; the catalogue's own words where there are none in this language. */
  const label = (name) => {
    const words = WORDS[language]?.[name]
    const meaning = (features[name]?.meaning || name).split(/[:;,(]/)[0].trim().replace(/\.$/, '')
    return words ? element('span', {}, words) : element('span', { lang: 'en' }, meaning)
  }

  const shown = (name, value) => {
    const { unit = '' } = features[name] || {}
    if (value === null) return t('missing')
    if (codes[unit]) return VALUES[language]?.[codes[unit][value]] || codes[unit][value] || t('missing')
    if (unit === 's') return value < 0 ? '–' : clock(value)
    if (unit === 'share') return percent(value)
    if (unit === 'currency') return price(value)
    if (unit === 'yes or no') return value ? t('yes') : t('no')
    return count(value)
  }

  const draw = (explanation) => {
    const found = explanation?.contributions.slice(0, SHOWN) || []
    if (!found.length) {
      show(list, element('li', { class: 'quiet' }, t('noReasons')))
      return
    }
    const largest = Math.abs(found[0].contribution)
    show(list, found.map(({ feature, value, contribution }) => {
      const up = contribution > 0
      const bar = element('span', { class: `bar ${up ? 'up' : 'down'}` })
      bar.style.width = `${Math.abs(contribution) / largest * 100}%`
      return element('li', { 'data-feature': feature },
        element('span', { class: 'words' }, label(feature), ' ', element('b', {}, shown(feature, value))),
        element('span', { class: 'effect' }, element('span', { class: 'hidden' }, t(up ? 'raises' : 'lowers')),
          element('span', { 'aria-hidden': 'true' }, up ? '▲' : '▼'), element('span', { class: 'track', 'aria-hidden': 'true' }, bar)))
    }))
  }
  return { node: list, draw }
}
