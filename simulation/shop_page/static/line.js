/** A score's line over the last while: steps, because a score holds until the service says another. */

import { clamp } from './numbers.js'
import { drawn, show } from './nodes.js'

const SECONDS = { least: 30, most: 90 }
const WIDTH = 200
const HEIGHT = 40

/**
 * A picture: `draw(history, now)`, history: [{ at, score }], ms, in order. threshold: of the offer, if the head has one, which
 * `counts(whether)` shows or hides.
 */
export function line(head, threshold) {
  const path = drawn('path', { class: 'curve', 'vector-effect': 'non-scaling-stroke' })
  const area = drawn('path', { class: 'area' })
  const y = (score) => HEIGHT - 2 - clamp(score) * (HEIGHT - 4)
  const mark = threshold === undefined ? null
    : drawn('line', { x1: 0, x2: WIDTH, y1: y(threshold), y2: y(threshold), class: 'threshold', 'vector-effect': 'non-scaling-stroke' })
  const node = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: `line ${head}` }, area, mark, path)

  const draw = (history, now) => {
    if (!history.length) {
      show(node, mark)
      return
    }
    const span = Math.min(Math.max((now - history[0].at) / 1000, SECONDS.least), SECONDS.most)
    const x = (at) => WIDTH * clamp(1 - (now - at) / 1000 / span)
    let steps = `M${x(history[0].at).toFixed(1)} ${y(history[0].score).toFixed(1)}`
    for (const { at, score } of history.slice(1)) steps += `H${x(at).toFixed(1)}V${y(score).toFixed(1)}`
    steps += `H${WIDTH}`
    path.setAttribute('d', steps)
    area.setAttribute('d', `${steps}V${HEIGHT}H${x(history[0].at).toFixed(1)}Z`)
    show(node, area, mark, path)
  }
  const counts = (whether) => mark?.toggleAttribute('hidden', !whether)
  return { node, draw, counts }
}
