/** Where the visitor's score lies among those of the crowd: bars by score, a line for the visitor. */

import { percent, t } from './language.js'
import { drawn, element, show } from './nodes.js'

const BINS = 20
const WIDTH = 300
const HEIGHT = 70

export function crowd() {
  const bars = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'bars' })
  const words = element('p', { class: 'standing' }, t('nobody'))
  let told = { sessions: 0, scores: {} }

  const source = new EventSource('/crowd')
  let redraw = () => {}
  source.addEventListener('message', ({ data }) => {
    told = JSON.parse(data)
    redraw()
  })

  /** Draw for a head and the visitor's own score, undefined if there is none yet. */
  const draw = (head, own) => {
    redraw = () => draw(head, own)
    const others = told.scores[head] || []
    if (!others.length) return
    const counts = Array(BINS).fill(0)
    for (const score of others) counts[Math.min(Math.floor(score / 100 * BINS), BINS - 1)] += 1
    // roots: many visits lie where the outcome is settled, and the others shall be seen beside them
    const most = Math.sqrt(Math.max(...counts))
    const step = WIDTH / BINS
    const drawnBars = counts.map((many, place) => {
      const height = many ? Math.max(Math.sqrt(many) / most * (HEIGHT - 8), 2) : 0
      return drawn('rect', { x: place * step + 1, y: HEIGHT - height, width: step - 2, height, rx: 1 })
    })
    if (own === undefined) {
      show(bars, drawnBars)
      return
    }
    const x = 1.5 + own * (WIDTH - 3)
    show(bars, drawnBars, drawn('line', { x1: x, x2: x, y1: 0, y2: HEIGHT, class: 'own', 'vector-effect': 'non-scaling-stroke' }))
    const below = others.filter((score) => score < own * 100).length
    const text = t('standing', { head: t(head), share: percent(below / others.length), number: others.length })
    bars.setAttribute('aria-label', text)
    words.textContent = text
    words.dataset.value = below / others.length
    words.dataset.sessions = others.length
  }
  return { node: element('div', {}, bars, words, element('p', { class: 'quiet small' }, t('standingText'))), draw }
}
