/** First visits and later ones, how long ago the one before was, and how many bought. */

import { FIRST, intervals } from './journeys_colours.js'
import { between, count, named, share } from './journeys_names.js'
import { Drawing, panel } from './journeys_parts.js'

export class Returning {
  #context

  constructor(context) {
    this.#context = context
    const { element, t } = context
    this.drawing = new Drawing(context)
    this.tables = element('div', { class: 'side-by-side' })
    const part = panel(context, t('returning'), element('p', { class: 'note' }, t('returningNote')), this.drawing.place, this.tables)
    this.node = part.node
    this.heading = part.heading
  }

  show({ returning: { visits, since_the_visit_before: since } }) {
    const { element, t } = this.#context
    this.#draw([...visits, ...since].filter((line) => line.bought !== null).reverse())
    this.tables.replaceChildren(this.#table(visits, t('visits')), since.length
      ? this.#table(since, t('sinceBefore'))
      : element('p', { class: 'note' }, t('nobodyReturned')))
  }

  remove() {
    return this.drawing.remove()
  }

  #draw(lines) {
    const context = this.#context
    const { t, percent } = context
    const conversion = (line) => line.bought / line.sessions
    const trace = {
      type: 'bar',
      orientation: 'h',
      y: lines.map((line) => named(context, 'visit', line.visit)),
      x: lines.map(conversion),
      marker: { color: FIRST },
      error_x: intervals(lines, conversion),
      hovertemplate: lines.map((line) => `%{y}: ${percent(conversion(line), 1)} (${t('range', { low: percent(line.low, 1), high: percent(line.high, 1) })})<extra></extra>`),
    }
    const layout = {
      height: 80 + 28 * lines.length,
      margin: { l: 8, r: 16, t: 8, b: 32 },
      showlegend: false,
      xaxis: { tickformat: '.0%', rangemode: 'tozero' },
      yaxis: { automargin: true },
    }
    this.drawing.show(lines.length ? [trace] : [], layout, t('returningChart'))
  }

  #table(lines, caption) {
    const context = this.#context
    const { t, table, percent } = context
    const rate = (value) => percent(value, 1)
    return table([
      { label: t('visitColumn'), value: (line) => named(context, 'visit', line.visit), header: true },
      { label: t('sessions'), value: (line) => count(context, line.sessions), align: 'right' },
      { label: t('bought'), value: (line) => count(context, line.bought), align: 'right' },
      { label: t('conversion'), value: (line) => share(context, line.bought === null ? null : line.bought / line.sessions), align: 'right' },
      { label: t('interval'), value: (line) => between(context, line.low, line.high, rate), align: 'right' },
    ], lines, caption)
  }
}
