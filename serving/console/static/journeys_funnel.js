/** Funnels: how many sessions reach each step, over all and by segment. */

import { count, named, namedSteps, share } from './journeys_names.js'
import { button, Choice, Drawing, Folded, panel } from './journeys_parts.js'
import { Builder } from './journeys_builder.js'
import { DIMENSIONS, notation } from './journeys_state.js'
import { FAINT, FIRST, SERIES } from './journeys_colours.js'

export class Funnels {
  #context
  #actions
  #state
  #cards = []
  #goTo = null

  /** actions: `change(part of the state)`. */
  constructor(context, actions) {
    this.#context = context
    this.#actions = actions
    const { element, t } = context
    this.builder = new Builder(context, (funnel, place) => this.#counted(funnel, place))
    this.usual = element('p', { class: 'note' }, t('usualFunnels'))
    this.again = button(context, t('usualAgain'), () => actions.change({ funnels: [] }), { class: 'chip' })
    this.by = new Choice(context, t('bySegment'), DIMENSIONS.map((one) => [one, named(context, 'dimension', one)]), (by) => actions.change({ by }))
    this.list = element('div', { class: 'funnels' })
    this.notes = element('div', {})
    const by = element('div', { class: 'controls' }, element('span', { 'aria-hidden': 'true' }, t('bySegment')), this.by.node, this.again)
    const part = panel(context, t('funnels'), element('p', { class: 'note' }, t('funnelsNote')), this.builder.node, this.usual, by, this.list, this.notes)
    this.node = part.node
    this.heading = part.heading
  }

  /** One more step of the funnel that is being made. */
  add(step) {
    this.builder.add(step)
  }

  show(found, state) {
    this.#state = state
    this.usual.hidden = state.funnels.length > 0 || found.funnels.length === 0
    this.again.hidden = state.funnels.length === 0
    this.by.show(state.by)
    this.builder.show(found, state.funnels.length)
    for (const card of this.#cards.splice(found.funnels.length)) card.remove()
    while (this.#cards.length < found.funnels.length) this.#cards.push(new Card(this.#context))
    this.#cards.forEach((card, place) => card.show(found.funnels[place], state.by, this.#buttons(found.funnels[place], place)))
    this.list.replaceChildren(...this.#cards.map((card) => card.node))
    this.notes.replaceChildren(...this.#notes(found))
    if (this.#goTo !== null) {
      this.#cards[this.#goTo]?.title.focus()
      this.#goTo = null
    }
  }

  remove() {
    for (const card of this.#cards) card.remove()
  }

  #counted(funnel, place) {
    const funnels = [...this.#state.funnels]
    const same = funnels.findIndex((one) => notation(one) === notation(funnel))
    if (same >= 0 && same !== place) {
      this.#cards[same].title.focus()
      return
    }
    funnels[place ?? funnels.length] = funnel
    this.#goTo = place ?? funnels.length - 1
    this.#actions.change({ funnels })
  }

  /** A usual funnel can be changed into one's own; one's own can be removed, too. */
  #buttons(funnel, place) {
    const { t } = this.#context
    const own = this.#state.funnels.length > 0
    const label = { funnel: titled(this.#context, funnel) }
    const remove = () => {
      this.#actions.change({ funnels: this.#state.funnels.filter((_, other) => other !== place) })
      this.heading.focus()
    }
    const { steps, mode, entry } = funnel
    const change = () => this.builder.edit({ steps, mode, entry }, own ? place : null)
    const buttons = [button(this.#context, t('change'), change, { class: 'chip', 'aria-label': t('changeFunnel', label) })]
    if (own) buttons.push(button(this.#context, t('remove'), remove, { class: 'chip', 'aria-label': t('removeFunnel', label) }))
    return buttons
  }

  #notes(found) {
    const { element, t, number } = this.#context
    const note = (text) => element('p', { class: 'note' }, text)
    const undecided = found.funnels.some((one) => one.undecided.some((some) => some !== 0))
    const rare = found.funnels.some((one) => 'rare' in one.segments[this.#state.by])
    return [
      ...(undecided ? [note(t('undecidedNote', { kept: number(found.kept_steps, 0) }))] : []),
      ...(rare ? [note(t('segmentRareNote', { least: number(found.least_visitors, 0) }))] : []),
    ]
  }
}

/** `item > cart add (strict, from the entry)`. */
export function titled(context, funnel) {
  const mode = context.t(`${funnel.mode}${funnel.entry ? 'Entry' : ''}Title`)
  return context.t('funnelTitle', { steps: namedSteps(context, funnel.steps), mode })
}

class Card {
  #context

  constructor(context) {
    this.#context = context
    const { element, t } = context
    this.title = element('h4', { tabindex: '-1' })
    this.buttons = element('div', { class: 'choice' })
    this.funnel = new Drawing(context)
    this.stages = element('div', {})
    this.lines = new Drawing(context)
    this.segments = new Folded(context, '')
    this.head = element('div', { class: 'funnel-head' }, this.title, this.buttons)
    this.node = element('article', { class: 'funnel' }, this.head, this.funnel.place, this.stages, this.lines.place, this.segments.node)
  }

  show(funnel, by, buttons) {
    this.title.textContent = titled(this.#context, funnel)
    this.buttons.replaceChildren(...buttons)
    this.#draw(funnel)
    this.#stages(funnel)
    this.#segments(funnel, by)
  }

  remove() {
    this.funnel.remove()
    this.lines.remove()
  }

  #draw({ steps, reached, ...rest }) {
    const { t, number, percent } = this.#context
    const told = reached.some((sessions) => sessions !== null && sessions > 0)
    const trace = {
      type: 'funnel',
      y: this.#numbered(steps),
      x: reached,
      text: reached.map((sessions) => (sessions === null ? '–' : `${number(sessions, 0)} (${percent(ratio(sessions, reached[0]), 1)})`)),
      textinfo: 'text',
      textposition: 'auto',
      insidetextfont: { color: 'var(--on-accent)' },
      hoverinfo: 'text',
      marker: { color: FIRST },
      connector: { fillcolor: FAINT, line: { width: 0 } },
    }
    const described = t('funnelChart', {
      funnel: titled(this.#context, { steps, ...rest }), first: number(reached[0], 0), last: number(reached.at(-1), 0),
    })
    const layout = { height: 56 + 52 * steps.length, margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, yaxis: { automargin: true } }
    this.funnel.show(told ? [trace] : [], layout, described)
  }

  #stages(funnel) {
    const context = this.#context
    const { t, table } = context
    const rows = funnel.steps.map((step, place) => ({ step, place }))
    const unsure = funnel.undecided.some((sessions) => sessions !== 0)
    this.stages.replaceChildren(table([
      { label: t('step'), value: ({ place }) => this.#numbered(funnel.steps)[place], header: true },
      { label: t('reached'), value: ({ place }) => count(context, funnel.reached[place]), align: 'right' },
      { label: t('ofFirst'), value: ({ place }) => share(context, ratio(funnel.reached[place], funnel.reached[0])), align: 'right' },
      { label: t('endedThere'), value: ({ place }) => (place < funnel.ended_there.length ? count(context, funnel.ended_there[place]) : ''), align: 'right' },
      ...(unsure ? [{ label: t('undecided'), value: ({ place }) => count(context, funnel.undecided[place]), align: 'right' }] : []),
    ], rows, t('stages', { funnel: titled(context, funnel) })))
  }

  #segments(funnel, by) {
    const context = this.#context
    const { t, table } = context
    const title = t('segmentCaption', { funnel: titled(context, funnel), dimension: named(context, 'dimension', by) })
    const rows = Object.entries(funnel.segments[by]).map(([label, reached]) => ({ label, name: named(context, by, label), reached }))
    rows.sort((a, b) => (b.reached[0] ?? 0) - (a.reached[0] ?? 0))
    const lines = rows.filter((row) => row.reached[0]).map((row, place) => ({
      type: 'scatter',
      mode: 'lines+markers',
      name: row.name,
      x: this.#numbered(funnel.steps),
      y: row.reached.map((sessions) => ratio(sessions, row.reached[0])),
      // what is not told is passed over
      connectgaps: true,
      line: { color: SERIES[place % SERIES.length], dash: place < SERIES.length ? 'solid' : 'dot' },
      hovertemplate: row.reached.map((sessions) => `${context.number(sessions, 0)} (${context.percent(ratio(sessions, row.reached[0]), 1)})`),
    }))
    const layout = {
      height: 320,
      margin: { l: 48, r: 12, t: 12, b: 40 },
      legend: { orientation: 'h', y: 1.02, yanchor: 'bottom' },
      yaxis: { tickformat: '.0%', rangemode: 'tozero' },
      xaxis: { type: 'category', automargin: true },
    }
    this.lines.show(lines.length > 1 && funnel.steps.length > 1 ? lines : [], layout, title)
    this.segments.node.firstChild.textContent = t('segmentTable', { dimension: named(context, 'dimension', by) })
    const all = { label: '', name: t('everyone'), reached: funnel.reached }
    this.segments.show(table([
      { label: t('segment'), value: (row) => context.element('span', { 'data-segment': row.label }, row.name), header: true },
      ...this.#numbered(funnel.steps).map((label, place) => ({ label, value: (row) => count(context, row.reached[place]), align: 'right' })),
      { label: t('allTheWay'), value: (row) => share(context, ratio(row.reached.at(-1), row.reached[0])), align: 'right' },
    ], [all, ...rows], title))
  }

  #numbered(steps) {
    return steps.map((step, place) => `${place + 1}. ${named(this.#context, 'step', step)}`)
  }
}

/** Of what is told; a share for display. */
function ratio(part, whole) {
  return part === null || !whole ? null : part / whole
}
