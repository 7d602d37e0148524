/** Colours and shapes that the charts of this view share; the frame reads `var(…)` from the theme. */

export const SERIES = [1, 2, 3, 4, 5, 6].map((number) => `var(--series-${number})`)
export const [FIRST, SECOND] = SERIES
export const FAINT = 'var(--line)'
export const QUIET = 'var(--quiet)'
export const GOOD = 'var(--good)'
export const BAD = 'var(--bad)'

/** A dashed line across a chart at `x`. */
export function dashed(x) {
  return { type: 'line', xref: 'x', yref: 'paper', x0: x, x1: x, y0: 0, y1: 1, line: { color: 'var(--text)', dash: 'dash', width: 1 } }
}

/** Plotly's bars from `low` to `high` around `value` of each line. */
export function intervals(lines, value) {
  return {
    type: 'data',
    symmetric: false,
    array: lines.map((line) => line.high - value(line)),
    arrayminus: lines.map((line) => value(line) - line.low),
    color: QUIET,
    thickness: 1.4,
    width: 3,
  }
}
