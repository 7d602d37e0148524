/** What the view "Journeys" says, in English and German; names of the API as `step.cart add`. */

import * as english from './journeys_english.js'
import * as german from './journeys_german.js'

function allOf({ words, sentences }) {
  const names = Object.entries(english.words).flatMap(([kind, values]) =>
    values.map((value, place) => [`${kind}.${value}`, words[kind][place]]))
  return { ...Object.fromEntries(names), ...sentences }
}

export const texts = { en: allOf(english), de: allOf(german) }
