/** Paths: forwards from how sessions begin, or backwards from a goal, with a slider for the moves that are shown. */

import { count, named, sentence, STEPS } from './journeys_names.js'
import { button, Choice, Drawing, fill, Folded, labelled, panel } from './journeys_parts.js'
import { endOf, sankey, tallest } from './journeys_sankey.js'
import { MOST_MOVES, MOST_STEPS } from './journeys_state.js'

const NO_STEPS = ['end', 'begin', 'rare', 'rare moves', 'not kept']
// so many pixels a move, or words lie over each other
const MOVE_WIDTH = 150
const BAR_HEIGHT = 46

export class Paths {
  #context
  #actions
  #found
  #state
  #selected = null

  /** actions: `change(part of the state)`, `toFunnel(step)`. */
  constructor(context, actions) {
    this.#context = context
    this.#actions = actions
    const { element, t } = context
    this.way = new Choice(context, t('paths'), [['forward', t('forward')], ['backward', t('backward')]],
      (way) => { this.#selected = null; actions.change({ way }) })
    this.goal = element('select', {})
    this.goal.addEventListener('change', () => this.#fix([this.goal.value]))
    this.goalLabel = labelled(context, t('goalIs'), this.goal)
    this.trail = element('div', { class: 'trail' })
    this.next = element('select', {})
    this.next.addEventListener('change', () => { if (this.next.value) this.#extend(this.next.value) })
    this.nextLabel = labelled(context, '', this.next)
    this.slider = element('input', { type: 'range', min: '1', max: String(MOST_MOVES), step: '1' })
    this.shownMoves = element('output', {})
    this.slider.addEventListener('input', () => this.#draw(Number(this.slider.value)))
    this.slider.addEventListener('change', () => actions.change({ moves: Number(this.slider.value) }))
    this.said = element('div', {})
    this.drawing = new Drawing(context, (chosen) => this.#select(chosen))
    this.selection = element('div', { class: 'selection', role: 'group', 'aria-live': 'polite' })
    this.moves = new Folded(context, t('movesTable'))
    this.steps = new Folded(context, t('stepsTable'))
    const slider = element('div', { class: 'slider' }, labelled(context, t('moves'), this.slider), this.shownMoves)
    const part = panel(context, t('paths'), element('div', { class: 'controls' }, this.way.node),
      element('div', { class: 'controls' }, this.goalLabel, this.trail, this.nextLabel, slider),
      this.said, this.drawing.place, this.selection, this.moves.node, this.steps.node)
    this.node = part.node
    this.heading = part.heading
  }

  show(found, state) {
    // of another answer the numbers are others
    if (found !== this.#found) this.#selected = null
    this.#found = found
    this.#state = state
    this.way.show(state.way)
    this.slider.value = String(state.moves)
    this.#showTrail()
    this.#draw(state.moves)
  }

  remove() {
    return this.drawing.remove()
  }

  get #backwards() {
    return this.#state.way === 'backward'
  }

  /** Steps that the picture begins with, or the last of which is its goal. */
  get #fixed() {
    if (!this.#backwards) return this.#state.begin
    return this.#state.goal.length ? this.#state.goal : (this.#found.backward?.goal ?? [])
  }

  /** The path that is shown. */
  get #part() {
    const { forward, entries, backward } = this.#found
    if (this.#backwards) return backward
    // one step to begin with is in the answer without any
    if (this.#state.begin.length !== 1) return forward
    const entry = entries.find((one) => one.begin[0] === this.#state.begin[0])
    return entry ?? { begin: this.#state.begin, sessions: null, steps: [], moves: [] }
  }

  #fix(steps) {
    this.#selected = null
    this.#actions.change(this.#backwards ? { goal: steps } : { begin: steps })
  }

  /** One more step: after those that the picture begins with, or before the goal. */
  #extend(step) {
    this.#fix(this.#backwards ? [step, ...this.#fixed] : [...this.#fixed, step])
  }

  #showTrail() {
    const { element, t } = this.#context
    const fixed = this.#fixed
    const backwards = this.#backwards
    // the goal has a field of its own; of what leads to it the front is taken away, of a begin the end
    const chips = (backwards ? fixed.slice(0, -1) : fixed).map((step, place) => {
      const text = named(this.#context, 'step', step)
      const take = () => {
        this.#fix(backwards ? fixed.slice(place + 1) : fixed.slice(0, place))
        this.next.focus()
      }
      return button(this.#context, `${text} ×`, take, { class: 'chip', 'aria-pressed': 'true', 'aria-label': t('takeAway', { step: text }) })
    })
    const arrows = chips.flatMap((chip, place) => (place ? [element('span', { 'aria-hidden': 'true' }, '→'), chip] : [chip]))
    this.trail.replaceChildren(element('span', {}, t(backwards ? 'before' : 'beginsWith')), ...arrows)
    this.trail.hidden = chips.length === 0
    const seen = STEPS.filter((step) => this.#found.endings.steps.some((one) => one.step === step))
    const options = (steps) => steps.map((step) => [step, named(this.#context, 'step', step)])
    this.goalLabel.hidden = !backwards
    fill(this.#context, this.goal, options(STEPS.filter((step) => seen.includes(step) || step === fixed.at(-1))), fixed.at(-1) ?? '')
    const beside = backwards ? fixed[0] : fixed.at(-1)
    const nothing = t(backwards || fixed.length ? 'noMore' : 'anyStep')
    fill(this.#context, this.next, [['', nothing], ...options(seen.filter((step) => step !== beside))], '')
    this.nextLabel.firstChild.textContent = t(backwards ? (chips.length ? 'andBefore' : 'before') : (fixed.length ? 'thenWith' : 'beginsWith'))
    this.nextLabel.hidden = fixed.length >= MOST_STEPS || (backwards && fixed.length === 0)
  }

  #draw(moves) {
    const { t, number } = this.#context
    const part = this.#part
    const deepest = Math.max(0, ...(part?.moves ?? []).map((move) => move.place))
    const places = Math.min(moves, deepest)
    this.shownMoves.textContent = moves === 1 ? t('moveShown') : t('movesShown', { number: moves })
    this.slider.setAttribute('aria-valuetext', this.shownMoves.textContent)
    this.said.replaceChildren(...this.#sentences(part))
    const traces = places ? [sankey(this.#context, part, places, this.#backwards)] : []
    const height = 120 + BAR_HEIGHT * (part ? tallest(part, places) : 1)
    this.drawing.node.style.minWidth = `${Math.min(places, 12) * MOVE_WIDTH + 40}px`
    const layout = { height: Math.min(Math.max(height, 320), 620), margin: { l: 8, r: 8, t: 12, b: 12 } }
    const described = part && t('pathsChart', { sessions: number(part.sessions, 0), moves: places })
    this.drawing.show(traces, layout, described)
    this.#showSelection()
    this.#tables(part, places)
  }

  #sentences(part) {
    const { t, number } = this.#context
    const { least_visitors: least, kept_steps: kept } = this.#found
    if (part === null) return [this.#note(t('noGoal'))]
    if (part.sessions === null) return [this.#note(t('tooFewPaths', { least: number(least, 0) }))]
    const told = [sentence(this.#context, this.#backwards ? 'backwardNote' : 'forwardNote', { sessions: count(this.#context, part.sessions) })]
    if (part.after_kept !== undefined && part.after_kept !== 0) {
      told.push(sentence(this.#context, 'afterKept', { sessions: this.#some(part.after_kept), kept: number(kept, 0) }))
    }
    const names = new Set(part.steps.map((one) => one.step))
    if (names.has('rare') || part.moves.some((move) => move.from === null || move.to === null)) {
      told.push(this.#note(t('rareNote', { least: number(least, 0) })))
    }
    if (names.has('not kept')) told.push(this.#note(t('notKeptNote', { kept: number(kept, 0) })))
    return told
  }

  /** A number that is `null` where it is some, but few. */
  #some(value) {
    return value === null ? this.#context.element('span', { 'data-value': 'null' }, this.#context.t('few')) : count(this.#context, value)
  }

  #note(text) {
    return this.#context.element('p', { class: 'note' }, text)
  }

  /** A bar of the picture, or a step of the table, was chosen; a band is none. */
  #select(chosen) {
    this.#selected = typeof chosen !== 'object' || NO_STEPS.includes(chosen.step) ? null : chosen
    this.#showSelection()
  }

  /** What can be done with the step that was chosen. */
  #showSelection() {
    const { element, t } = this.#context
    const chosen = this.#selected
    this.selection.hidden = chosen === null
    if (chosen === null) return this.selection.replaceChildren()
    const { step, place } = chosen
    const context = this.#context
    const fixed = this.#fixed
    // what was chosen is another picture's then
    const change = (part) => {
      this.#selected = null
      this.#actions.change(part)
      this.heading.focus({ preventScroll: true })
    }
    const others = []
    if (this.#backwards && place === fixed.length + 1) others.push(['backHere', () => change({ goal: [step, ...fixed] })])
    if (!this.#backwards && place === 1 && fixed.length === 0) others.push(['beginHere', () => change({ begin: [step] })])
    if (!this.#backwards && fixed.length > 0 && place === fixed.length + 1) others.push(['goOnHere', () => change({ begin: [...fixed, step] })])
    others.push(['toFunnel', () => this.#actions.toFunnel(step)])
    if (!this.#backwards || fixed.join() !== step) others.push(['goalHere', () => change({ way: 'backward', goal: [step] })])
    others.push(['leaveOut', () => change({ without: [...this.#state.without, step] })])
    this.selection.replaceChildren(
      sentence(context, 'chosenStep', { step: element('strong', {}, named(context, 'step', step)), place, sessions: count(context, chosen.sessions) }),
      element('div', { class: 'controls' }, ...others.map(([key, act]) => button(context, t(key), act, { class: 'chip' }))))
  }

  #tables(part, places) {
    const context = this.#context
    const { t, table } = context
    const backwards = this.#backwards
    const name = (step) => named(context, 'step', endOf(step, backwards))
    const moves = (part?.moves ?? []).filter((move) => move.place <= places)
    const steps = (part?.steps ?? []).filter((one) => one.place <= places + 1)
    if (!moves.length) {
      this.moves.show()
      this.steps.show()
      return
    }
    this.moves.show(table([
      { label: t('move'), value: (row) => context.number(row.place, 0), sort: (row) => row.place },
      { label: t('from'), value: (row) => name(row.from), sort: (row) => name(row.from) },
      { label: t('to'), value: (row) => name(row.to), sort: (row) => name(row.to) },
      { label: t('sessions'), value: (row) => count(context, row.sessions), sort: (row) => row.sessions, align: 'right' },
    ], moves, t('movesCaption')))
    this.steps.show(table([
      { label: t('place'), value: (row) => context.number(row.place, 0) },
      { label: t('step'), value: (row) => this.#chooser(row, name(row.step)) },
      { label: t('sessions'), value: (row) => count(context, row.sessions), sort: (row) => row.sessions, align: 'right' },
    ], steps, t('stepsCaption')))
  }

  /** The step's name; a button, where the step can be chosen. */
  #chooser(row, text) {
    if (NO_STEPS.includes(row.step)) return text
    const choose = () => { this.#select(row); this.selection.querySelector('button').focus() }
    return button(this.#context, text, choose, { class: 'chip', 'aria-label': this.#context.t('choose', { step: text, place: row.place }) })
  }
}
