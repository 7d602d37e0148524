/** The page's language: by `?lang=`, else the browser's; nothing is remembered on the device. */

import { TEXTS } from './texts.js'

const asked = new URLSearchParams(location.search).get('lang') || navigator.language.slice(0, 2)

export const language = asked in TEXTS ? asked : 'en'
export const other = language === 'de' ? 'en' : 'de'

/** The text of a key, with `{name}` replaced by values. */
export function t(key, values = {}) {
  const text = TEXTS[language][key]
  if (text === undefined) throw new Error(`no text ${key} in ${language}`)
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name])
}

const money = new Intl.NumberFormat(language, { style: 'currency', currency: 'EUR' })
const number = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 })
const percents = new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 0 })
const finer = new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 1 })

export const price = (value) => money.format(value)
export const count = (value) => number.format(value)

/** A probability; small ones with a digit more, because a conversion's are small. */
export const percent = (value) => (value > 0 && value < 0.1 ? finer : percents).format(value)

/** 75 as 1:15. */
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`
