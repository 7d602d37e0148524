/** Where sessions end, exactly, and at which steps surely more end than at others. */

import { BAD, dashed, FIRST, intervals } from './journeys_colours.js'
import { between, count, named, share, signed } from './journeys_names.js'
import { Drawing, panel } from './journeys_parts.js'

export class Endings {
  #context

  constructor(context) {
    this.#context = context
    const { element, t } = context
    this.said = element('p', { class: 'note' })
    this.drawing = new Drawing(context)
    this.table = element('div', {})
    const part = panel(context, t('endings'), this.said, this.drawing.place, this.table)
    this.node = part.node
    this.heading = part.heading
  }

  show({ endings: { common_share: common, steps } }) {
    const context = this.#context
    const { element, t, percent, number, table } = context
    const rate = (value) => percent(value, 1)
    this.said.textContent = t('endingsNote', { share: rate(common) })
    const lines = steps.filter((line) => line.share !== null).sort((a, b) => a.share - b.share)
    const trace = {
      type: 'bar',
      orientation: 'h',
      y: lines.map((line) => named(context, 'step', line.step)),
      x: lines.map((line) => line.share),
      marker: { color: lines.map((line) => (line.bottleneck ? BAD : FIRST)) },
      error_x: intervals(lines, (line) => line.share),
      hovertemplate: lines.map((line) => `%{y}: ${rate(line.share)} (${t('range', { low: rate(line.low), high: rate(line.high) })})<extra></extra>`),
    }
    const layout = {
      height: 90 + 28 * lines.length,
      margin: { l: 8, r: 16, t: 24, b: 32 },
      showlegend: false,
      xaxis: { tickformat: '.0%', rangemode: 'tozero' },
      yaxis: { automargin: true },
      shapes: [dashed(common)],
      annotations: [{ x: common, y: 1, xref: 'x', yref: 'paper', yanchor: 'bottom', showarrow: false, text: t('common', { share: rate(common) }) }],
    }
    this.drawing.show(lines.length ? [trace] : [], layout, t('endingsChart'), t('endingsAxis'))
    const name = (line) => element('span', {}, named(context, 'step', line.step), ...(line.bottleneck ? [' ', element('strong', { class: 'bottleneck' }, t('bottleneck'))] : []))
    this.table.replaceChildren(table([
      { label: t('step'), value: name, header: true },
      { label: t('sessions'), value: (line) => count(context, line.sessions), sort: (line) => line.sessions, align: 'right' },
      { label: t('began'), value: (line) => count(context, line.began), sort: (line) => line.began, align: 'right' },
      { label: t('ended'), value: (line) => count(context, line.ended), sort: (line) => line.ended, align: 'right' },
      { label: t('share'), value: (line) => share(context, line.share), sort: (line) => line.share, align: 'right' },
      { label: t('interval'), value: (line) => between(context, line.low, line.high, rate), align: 'right' },
      { label: t('excess'), value: (line) => signed(context, line.excess, (value) => number(value, 0)), sort: (line) => line.excess, align: 'right' },
    ], steps, t('endings')))
  }

  remove() {
    return this.drawing.remove()
  }
}
