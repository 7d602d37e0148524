/** Which days, and which steps are not looked at; and the numbers that matter, large. */

import { count, named, namedDay, namedSteps, sentence, share, STEPS } from './journeys_names.js'
import { button, Folded, labelled, panel } from './journeys_parts.js'
import { day } from './journeys_state.js'

const DAY_MS = 86_400_000
const LAST_DAYS = [7, 30, 90]

/** Days and steps to leave out. */
export class Controls {
  #context
  #actions
  #state

  /** actions: `change(part of the state)`. */
  constructor(context, actions) {
    this.#context = context
    this.#actions = actions
    const { element, t, number } = context
    const field = (name) => {
      const input = element('input', { type: 'date' })
      input.addEventListener('change', () => actions.change({ [name]: day(input.value) }))
      return input
    }
    this.since = field('since')
    this.until = field('until')
    const days = LAST_DAYS.map((many) => button(context, t('days', { number: number(many, 0) }), () => {
      actions.change({ since: new Date(Date.now() - (many - 1) * DAY_MS).toISOString().slice(0, 10), until: '' })
    }, { class: 'chip' }))
    days.push(button(context, t('allDays'), () => actions.change({ since: '', until: '' }), { class: 'chip' }))
    this.without = new Map(STEPS.map((step) => [step, button(context, named(context, 'step', step), () => this.#turn(step), { class: 'chip', 'aria-pressed': 'false' })]))
    this.folded = new Folded(context, t('without'))
    this.folded.show(element('p', { class: 'note' }, t('withoutNote')), element('div', { class: 'choice', role: 'group', 'aria-label': t('without') }, ...this.without.values()))
    this.node = element('div', { class: 'panel' },
      element('div', { class: 'controls' }, labelled(context, t('since'), this.since), labelled(context, t('until'), this.until), ...days),
      this.folded.node)
  }

  show(found, state) {
    this.#state = state
    this.since.value = state.since
    this.until.value = state.until
    this.since.max = state.until
    this.until.min = state.since
    const seen = new Set((found?.endings?.steps ?? []).map((one) => one.step))
    for (const [step, chip] of this.without) {
      chip.setAttribute('aria-pressed', String(state.without.includes(step)))
      chip.hidden = !seen.has(step) && !state.without.includes(step)
    }
    const { t } = this.#context
    this.folded.node.hidden = [...this.without.values()].every((chip) => chip.hidden)
    this.folded.node.firstChild.textContent = state.without.length
      ? t('withoutThem', { steps: state.without.map((step) => named(this.#context, 'step', step)).join(', ') })
      : t('without')
  }

  #turn(step) {
    const { without } = this.#state
    this.#actions.change({ without: without.includes(step) ? without.filter((other) => other !== step) : [...without, step] })
  }
}

/** Sessions, visitors, days, who left at once and who stayed. */
export function tiles(context, found) {
  const { element, t, number } = context
  const tile = (value, what, name) => element('div', { class: 'tile', 'data-tile': name }, element('b', {}, value), element('span', {}, what))
  const { cohorts: part, sessions } = found
  const of = element('span', {}, `${t('sessions')} `, ...sentence(context, 'ofVisitors', { visitors: count(context, found.visitors) }).childNodes)
  const made = [
    tile(count(context, sessions), of, 'sessions'),
    tile(element('span', {}, namedDay(context, found.from_day), ' – ', namedDay(context, found.to_day)), t('daysTold'), 'days'),
  ]
  if (part.brief !== null) {
    made.push(tile(share(context, part.brief / sessions), t('leftWithin', { seconds: context.seconds(part.brief_seconds) }), 'brief'))
    made.push(tile(share(context, part.long / sessions), t('stayedOver', { seconds: context.seconds(part.long_seconds) }), 'long'))
  }
  return element('div', { class: 'tiles' }, ...made)
}

/** How it is counted. */
export function notes(context, found) {
  const { element, t, number } = context
  const some = (value) => (value === null ? element('span', { 'data-value': 'null' }, t('few')) : count(context, value))
  const said = [
    element('p', { class: 'note' }, t('noteLeast', { least: number(found.least_visitors, 0) })),
    sentence(context, 'noteKept', { kept: count(context, found.kept_steps), longer: some(found.longer) }),
    element('p', { class: 'note' }, t('noteAgree')),
  ]
  if (found.open) said.push(sentence(context, 'noteOpen', { sessions: some(found.open) }))
  if (found.without_path) said.push(sentence(context, 'noteWithoutPath', { sessions: some(found.without_path) }))
  if (found.without_steps !== 0) said.push(sentence(context, 'noteWithoutSteps', { sessions: some(found.without_steps) }))
  if (found.without.length) said.push(element('p', { class: 'note' }, t('withoutThem', { steps: namedSteps(context, found.without).replaceAll(' > ', ', ') })))
  const part = panel(context, t('notes'), ...said)
  return part
}
