/** Sessions that left at once against those that stayed: what differs, and how much. */

import { BAD, dashed, GOOD, intervals } from './journeys_colours.js'
import { between, count, namedTrait, sentence, share, shown, signed } from './journeys_names.js'
import { Choice, Drawing, panel } from './journeys_parts.js'

// the largest effects come first; the table has all of them
const MOST_SHOWN = 14

export class Cohorts {
  #context
  #found
  #when = 'start'

  constructor(context) {
    this.#context = context
    const { element, t } = context
    this.said = element('div', {})
    this.when = new Choice(context, t('cohortsShort'), [['start', t('atStart')], ['course', t('inCourse')]], (when) => {
      this.#when = when
      this.show(this.#found)
    })
    this.drawing = new Drawing(context)
    this.table = element('div', {})
    this.controls = element('div', { class: 'controls' }, this.when.node)
    this.effect = element('p', { class: 'note' }, t('effectNote'))
    const part = panel(context, t('cohortsShort'), this.said, this.controls, this.drawing.place, this.table, this.effect)
    this.node = part.node
    this.heading = part.heading
    this.title = t('cohortsShort')
  }

  show(found) {
    this.#found = found
    const context = this.#context
    const { element, t, table } = context
    const part = found.cohorts
    this.heading.textContent = t('cohorts', { brief: context.seconds(part.brief_seconds), long: context.seconds(part.long_seconds) })
    const told = part.brief !== null
    for (const node of [this.controls, this.effect]) node.hidden = !told
    this.when.show(this.#when)
    const traits = part.traits.filter((trait) => trait.at_start === (this.#when === 'start'))
    this.said.replaceChildren(told
      ? sentence(context, 'cohortsNote', { brief: count(context, part.brief), long: count(context, part.long) })
      : element('p', { class: 'note' }, t('cohortsFew')))
    this.#draw(traits.filter((trait) => trait.kind === 'share').slice(0, MOST_SHOWN).reverse())
    const value = (trait, side) => (trait.kind === 'share' ? share(context, trait[side]) : shown(context, trait[side], context.number(trait[side], Number.isInteger(trait[side]) ? 0 : 1)))
    // the difference of two shares has a sign, the probability of more has none
    const rate = (value) => context.percent(value, 1)
    const effect = (trait) => (trait.kind === 'share' ? signed(context, trait.effect, rate) : share(context, trait.effect))
    const rows = table([
      { label: t('traitColumn'), value: (trait) => element('span', { 'data-trait': trait.name }, namedTrait(context, trait.name)), header: true },
      { label: t('left'), value: (trait) => value(trait, 'brief'), align: 'right' },
      { label: t('stayed'), value: (trait) => value(trait, 'long'), align: 'right' },
      { label: t('effect'), value: effect, align: 'right' },
      { label: t('interval'), value: (trait) => between(context, trait.low, trait.high, rate), align: 'right' },
      { label: t('cohenH'), value: (trait) => (trait.h === null ? '' : signed(context, trait.h, (h) => context.number(h, 2))), align: 'right' },
    ], traits, this.heading.textContent)
    const nothing = told ? [element('p', { class: 'note' }, t('noTraits'))] : []
    this.table.replaceChildren(...(traits.length ? [rows] : nothing))
  }

  remove() {
    return this.drawing.remove()
  }

  #draw(lines) {
    const context = this.#context
    const { t, percent } = context
    const side = (wanted) => lines.filter((line) => line.effect > 0 === wanted)
    const marks = (own, name, color) => ({
      type: 'scatter',
      mode: 'markers',
      name,
      y: own.map((line) => namedTrait(context, line.name)),
      x: own.map((line) => line.effect),
      marker: { color, size: 9 },
      error_x: intervals(own, (line) => line.effect),
      hovertemplate: own.map((line) => `%{y}: ${percent(line.effect, 1)} (${t('range', { low: percent(line.low, 1), high: percent(line.high, 1) })})<extra></extra>`),
    })
    const traces = [marks(side(true), t('more'), GOOD), marks(side(false), t('less'), BAD)].filter((one) => one.x.length)
    const layout = {
      height: 130 + 26 * lines.length,
      margin: { l: 8, r: 16, t: 12, b: 32 },
      showlegend: true,
      legend: { orientation: 'h', y: 1.02, yanchor: 'bottom' },
      xaxis: { tickformat: '+.0%', zeroline: false },
      yaxis: { automargin: true, type: 'category', categoryorder: 'array', categoryarray: lines.map((line) => namedTrait(context, line.name)) },
      shapes: [dashed(0)],
    }
    this.drawing.show(traces, layout, t('cohortsChart'), t('cohortsAxis'))
  }
}
