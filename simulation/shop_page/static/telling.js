/**
 * What the page tells Lotse: one event a step, as the simulated shop's history has it. So `auto` is off: with automatic page
 * views a product page would be two steps, here only, and the models have never seen that.
 */

import { init } from '/client/index.mjs'

/** Scores that are worth a word from the service, so that lines move without the page asking again and again. */
const STEPS = { bounce: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], exit: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], conversion: [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9] }

const listeners = new Set()
let lotse

/** Told of each event: its name and details. */
export const heard = (listener) => listeners.add(listener)

export function begin(collector, thresholds) {
  const wanted = Object.entries(STEPS).flatMap(([head, steps]) => steps.map((step) => `${head}:${step}`))
  const ours = Object.entries(thresholds).map(([head, score]) => `${head}:${score}`)
  lotse = init({ collector, auto: false, thresholds: [...new Set([...ours, ...wanted])].slice(0, 32) })
  return lotse
}

let first = true

export function told(name, details = {}) {
  // who came by a link says so in life; here everybody types the address
  lotse.track(name, first ? { channel: 'direct', ...details } : { channel: 'internal', ...details })
  first = false
  listeners.forEach((listener) => listener(name, details))
}
