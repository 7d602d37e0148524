/** How long sessions stay on each kind of page, and whether those that end there stayed longer. */

import { FIRST, SECOND } from './journeys_colours.js'
import { count, named, seconds } from './journeys_names.js'
import { Drawing, panel } from './journeys_parts.js'

export class Dwell {
  #context

  constructor(context) {
    this.#context = context
    const { element, t } = context
    this.drawing = new Drawing(context)
    this.table = element('div', {})
    const part = panel(context, t('dwell'), element('p', { class: 'note' }, t('dwellNote')), this.drawing.place, this.table)
    this.node = part.node
    this.heading = part.heading
  }

  show({ dwell: lines }) {
    const context = this.#context
    const { t, table } = context
    const kinds = [...lines].reverse()
    const bars = (value, name, color) => ({
      type: 'bar',
      orientation: 'h',
      name,
      y: kinds.map((line) => named(context, 'step', line.kind)),
      x: kinds.map(value),
      marker: { color },
      hovertemplate: kinds.map((line) => `%{y}, ${name}: ${context.seconds(value(line))}<extra></extra>`),
    })
    const traces = [
      bars((line) => line.ended_median_seconds, t('endedLegend'), SECOND),
      bars((line) => line.went_on_median_seconds, t('wentOnLegend'), FIRST),
    ]
    const layout = {
      height: 110 + 46 * lines.length,
      margin: { l: 8, r: 16, t: 12, b: 32 },
      barmode: 'group',
      legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', traceorder: 'reversed' },
      xaxis: { rangemode: 'tozero' },
      yaxis: { automargin: true },
    }
    this.drawing.show(lines.length ? traces : [], layout, t('dwellChart'), t('secondsAxis'))
    const column = (label, name) => ({ label, value: (line) => seconds(context, line[`${name}_seconds`]), align: 'right' })
    this.table.replaceChildren(table([
      { label: t('page'), value: (line) => named(context, 'step', line.kind), header: true },
      { label: t('sessions'), value: (line) => count(context, line.sessions), align: 'right' },
      column(t('median'), 'median'),
      column(t('mean'), 'mean'),
      column(t('p90'), 'p90'),
      column(t('wentOn'), 'went_on_median'),
      column(t('endedMedian'), 'ended_median'),
    ], lines, t('dwell')))
  }

  remove() {
    return this.drawing.remove()
  }
}
