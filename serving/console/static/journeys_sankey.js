/** A path as a Sankey diagram: steps as bars, moves as bands, place by place; drawn as `lotse report` does. */

import { named } from './journeys_names.js'

const BLUE = '#0b6e99'
const ORANGE = '#d9822b'
const GREY = '#8a8f98'
const RED = '#c2382e'
const GREEN = '#2e7d4f'
const SAND = '#c0a53a'
const COLOURS = {
  content: '#7a9cc6', list: '#5b8fb0', item: BLUE, search: '#8168a8', cart: ORANGE, 'cart add': ORANGE, 'cart remove': '#c98b5a',
  checkout: SAND, shipping: SAND, payment: SAND, purchase: GREEN, lead: GREEN, end: RED,
}

/** What stands at one end of a move: those that too few made are together. */
export function endOf(step, backwards) {
  if (step === null) return 'rare moves'
  return backwards && step === 'end' ? 'begin' : step
}

/**
 * Plotly's trace of the first `places` moves. Each node has `customdata` {place, step, sessions}, so that a click on it
 * can be understood.
 */
export function sankey(context, part, places, backwards) {
  const nodes = []
  const at = new Map()
  const told = new Map(part.steps.map((one) => [`${one.place} ${one.step}`, one.sessions]))
  const node = (place, step) => {
    const key = `${place} ${step}`
    if (!at.has(key)) {
      at.set(key, nodes.length)
      nodes.push({ place, step, sessions: told.get(key) ?? 0, size: 0, colour: colour(step, backwards) })
    }
    return at.get(key)
  }
  const links = part.moves.filter((move) => move.place <= places).map((move) => {
    const [near, far] = backwards ? [move.to, move.from] : [move.from, move.to]
    const here = node(move.place, near)
    const there = node(move.place + 1, far ?? 'rare moves')
    return { ...move, source: backwards ? there : here, target: backwards ? here : there, there }
  })
  // what goes in, or out: the larger one, for paths end
  for (const side of ['source', 'target']) {
    const flow = nodes.map(() => 0)
    for (const link of links) flow[link[side]] += link.sessions
    nodes.forEach((one, number) => { one.size = Math.max(one.size, flow[number]) })
  }
  for (const one of nodes) if (one.step === 'rare moves') one.sessions = one.size
  const y = heights(nodes)
  const name = (step) => named(context, 'step', endOf(step === 'rare moves' ? null : step, backwards))
  const sessions = (number) => context.t('sessionsHover', { number: context.number(number, 0) })
  return {
    type: 'sankey',
    arrangement: 'snap',
    node: {
      label: nodes.map((one) => name(one.step)),
      color: nodes.map((one) => one.colour),
      x: nodes.map((one) => within(backwards ? 1 - (one.place - 1) / places : (one.place - 1) / places)),
      y,
      pad: 14,
      thickness: 16,
      line: { width: 0 },
      customdata: nodes.map((one) => ({ place: one.place, step: one.step, sessions: one.sessions, text: sessions(one.sessions) })),
      hovertemplate: '%{label}: %{customdata.text}<extra></extra>',
    },
    link: {
      source: links.map((link) => link.source),
      target: links.map((link) => link.target),
      value: links.map((link) => link.sessions),
      color: links.map((link) => pale(nodes[backwards ? link.source : link.target].colour)),
      customdata: links.map((link) => sessions(link.sessions)),
      hovertemplate: '%{source.label} → %{target.label}: %{customdata}<extra></extra>',
    },
  }
}

/** How many bars stand above each other at most: what height the picture needs. */
export function tallest(part, places) {
  const counts = new Map()
  for (const one of part.steps) if (one.place <= places + 1) counts.set(one.place, (counts.get(one.place) ?? 0) + 1)
  return Math.max(1, ...counts.values())
}

/** Where the middle of each bar is: those of a place under each other, the largest on top. */
function heights(nodes) {
  const columns = new Map()
  for (const one of nodes) columns.set(one.place, [...(columns.get(one.place) ?? []), one])
  const sums = [...columns.values()].map((column) => column.reduce((sum, one) => sum + one.size, 0))
  const whole = Math.max(1, ...sums)
  const y = new Map()
  for (const column of columns.values()) {
    let above = 0
    for (const one of [...column].sort((a, b) => b.size - a.size)) {
      const height = (0.85 * one.size) / whole
      y.set(one, within(above + height / 2))
      above += height + 0.15 / column.length
    }
  }
  return nodes.map((one) => y.get(one))
}

function colour(step, backwards) {
  return backwards && step === 'end' ? GREY : (COLOURS[step] ?? GREY)
}

function pale(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))
  return `rgba(${red},${green},${blue},0.34)`
}

// Plotly takes 0 and 1 for no place at all
function within(share) {
  return Math.min(Math.max(share, 0.001), 0.999)
}
