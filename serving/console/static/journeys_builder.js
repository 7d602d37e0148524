/** A funnel that is made by clicking its steps. */

import { named, STEPS } from './journeys_names.js'
import { button } from './journeys_parts.js'
import { MOST_FUNNELS, MOST_STEPS, repeats } from './journeys_state.js'

export class Builder {
  #context
  #counted
  #draft = empty()
  #place = null
  #funnels = 0

  /** counted: is given the funnel, and which one it replaces, or null. */
  constructor(context, counted) {
    this.#context = context
    this.#counted = counted
    const { element, t } = context
    this.steps = new Map(STEPS.map((step) => [step, button(context, named(context, 'step', step), () => this.add(step), { class: 'chip' })]))
    this.chosen = element('ol', { class: 'chosen', 'aria-live': 'polite', 'aria-label': t('newFunnel'), tabindex: '-1' })
    const toggle = (text, pressed, title = '') => button(context, text, pressed, { class: 'chip', 'aria-pressed': 'false', title })
    this.loose = toggle(t('loose'), () => this.#change({ mode: 'loose' }))
    this.strict = toggle(t('strict'), () => this.#change({ mode: 'strict' }))
    this.entry = toggle(t('fromEntry'), () => this.#change({ entry: !this.#draft.entry }), t('fromEntryHint'))
    this.count = button(context, t('count'), () => this.#done(), { class: 'primary' })
    this.clear = button(context, t('clear'), () => { this.#start(empty(), null); this.chosen.focus() }, { class: 'chip' })
    this.said = element('p', { class: 'note', role: 'status' })
    this.node = element('fieldset', { class: 'builder' },
      element('legend', {}, t('newFunnel')),
      element('p', { class: 'note' }, t('addSteps')),
      element('div', { class: 'choice' }, ...this.steps.values()),
      this.chosen,
      element('div', { class: 'controls' },
        element('div', { class: 'choice' }, this.loose, this.strict), this.entry, this.count, this.clear),
      this.said)
    this.#draw()
  }

  show(found, funnels) {
    this.#funnels = funnels
    const seen = new Set(found.endings.steps.map((one) => one.step))
    for (const [step, chip] of this.steps) chip.hidden = !seen.has(step)
    this.#draw()
  }

  add(step) {
    if (this.#mayAdd(step)) this.#change({ steps: [...this.#draft.steps, step] })
  }

  /** Change one that is there. */
  edit(funnel, place) {
    this.#start(funnel, place)
    this.chosen.focus()
  }

  #start(funnel, place) {
    this.#draft = funnel
    this.#place = place
    this.#draw()
  }

  #change(part) {
    this.#draft = { ...this.#draft, ...part }
    this.#draw()
  }

  #done() {
    const [draft, place] = [this.#draft, this.#place]
    this.#start(empty(), null)
    this.#counted(draft, place)
  }

  #mayAdd(step) {
    const { steps, mode } = this.#draft
    return steps.length < MOST_STEPS && !(mode === 'strict' && steps.at(-1) === step)
  }

  #draw() {
    const { element, t, number } = this.#context
    const { steps, mode, entry } = this.#draft
    const many = this.#place === null && this.#funnels >= MOST_FUNNELS
    for (const [step, chip] of this.steps) chip.disabled = !this.#mayAdd(step)
    this.loose.setAttribute('aria-pressed', String(mode === 'loose'))
    this.strict.setAttribute('aria-pressed', String(mode === 'strict'))
    this.strict.disabled = repeats(steps)
    this.entry.setAttribute('aria-pressed', String(entry))
    this.count.disabled = steps.length === 0 || many
    this.clear.hidden = steps.length === 0
    const chips = steps.map((step, place) => {
      const text = named(this.#context, 'step', step)
      const take = () => {
        const rest = steps.filter((_, other) => other !== place)
        // what stands beside each other now may be one step twice
        this.#change({ steps: rest, mode: repeats(rest) ? 'loose' : mode })
        this.chosen.focus()
      }
      return element('li', {}, button(this.#context, `${place + 1}. ${text} ×`, take, { class: 'chip', 'aria-label': t('takeAway', { step: text }) }))
    })
    this.chosen.replaceChildren(...(chips.length ? chips : [element('li', { class: 'note' }, t('noSteps'))]))
    if (many) this.said.textContent = t('mostFunnels', { number: number(MOST_FUNNELS, 0) })
    else if (repeats(steps)) this.said.textContent = t('follows')
    else if (steps.length >= MOST_STEPS) this.said.textContent = t('mostSteps', { number: number(MOST_STEPS, 0) })
    else this.said.textContent = ''
  }
}

function empty() {
  return { steps: [], mode: 'loose', entry: false }
}
