/**
 * What is asked: read from the address, so that what is seen can be linked, and written as the API's query. Lists are
 * repeated and funnels written as there (`funnel=^item >> cart add`).
 */

import { STEPS } from './journeys_names.js'

export const MOST_STEPS = 10
export const MOST_FUNNELS = 8
export const MOST_MOVES = 12
export const DIMENSIONS = ['device', 'channel', 'campaign', 'visit', 'entry']
/** Moves that are asked for as long as no more are shown. */
const USUAL_DEPTH = 6
const DAY_MS = 86_400_000
const DAY = /^\d{4}-\d{2}-\d{2}$/

/** The state of the address; what cannot be is left out, for addresses are written by hand, too. */
export function read(params, usualMoves) {
  const moves = Number(params.get('moves'))
  return {
    since: day(params.get('since')),
    until: day(params.get('until')),
    way: params.get('way') === 'backward' ? 'backward' : 'forward',
    begin: steps(params.getAll('begin')),
    goal: steps(params.getAll('goal')),
    without: steps(params.getAll('without')),
    moves: Number.isInteger(moves) && moves >= 1 && moves <= MOST_MOVES ? moves : usualMoves,
    funnels: params.getAll('funnel').map(parsed).filter(Boolean).slice(0, MOST_FUNNELS),
    by: DIMENSIONS.includes(params.get('by')) ? params.get('by') : 'device',
  }
}

/** As `setParams` takes it. */
export function written(state) {
  return {
    since: state.since,
    until: state.until,
    way: state.way === 'backward' ? 'backward' : '',
    begin: state.begin,
    goal: state.goal,
    without: state.without,
    moves: String(state.moves),
    funnel: state.funnels.map(notation),
    by: state.by === 'device' ? '' : state.by,
  }
}

/** The address of the document. One begin more than none is in the answer without any (`entries`). */
export function question(state) {
  const query = new URLSearchParams()
  if (state.begin.length > 1) for (const step of state.begin) query.append('begin', step)
  for (const step of state.goal) query.append('goal', step)
  for (const step of state.without) query.append('without', step)
  for (const funnel of state.funnels) query.append('funnel', notation(funnel))
  query.set('depth', String(state.moves > USUAL_DEPTH ? MOST_MOVES : USUAL_DEPTH))
  if (state.since) query.set('since_ms', String(Math.max(Date.parse(state.since), 0)))
  if (state.until) query.set('until_ms', String(Math.max(Date.parse(state.until) + DAY_MS, 0)))
  return `/v1/insight/journeys?${query}`
}

/** A funnel as the API takes it. */
export function notation({ steps, mode, entry }) {
  return (entry ? '^' : '') + steps.join(mode === 'strict' ? ' >> ' : ' > ')
}

/** Whether a step stands twice in a row: no strict funnel has that. */
export function repeats(steps) {
  return steps.some((step, place) => step === steps[place - 1])
}

function parsed(text) {
  const mode = text.includes('>>') ? 'strict' : 'loose'
  const found = text.trim().replace(/^\^/, '').split(mode === 'strict' ? '>>' : '>').map((step) => step.trim())
  const sound = found.length <= MOST_STEPS && found.every((step) => STEPS.includes(step))
  return sound && !(mode === 'strict' && repeats(found)) ? { steps: found, mode, entry: text.trim().startsWith('^') } : null
}

function steps(given) {
  return given.filter((step) => STEPS.includes(step)).slice(0, MOST_STEPS)
}

/** A day as a date field writes it, or none. */
export function day(text) {
  return DAY.test(text ?? '') && !Number.isNaN(Date.parse(text)) ? text : ''
}
