/** Products are drawn: a silhouette by category, colours by number. Nothing has to be loaded. */

import { drawn } from './nodes.js'

const SHAPES = {
  shoes: 'M8 60c0-8 2-18 4-24l16 6c4 10 12 16 24 18l20 4c8 2 14 6 15 14H10c-2-6-2-12-2-18zM10 82h77v6H10zM34 44l6-4M40 51l6-5M47 56l5-5',
  jackets: 'M36 14l14 8 14-8 20 12 8 44-12 4-6-24v38H26V50l-6 24-12-4 8-44zM50 22v66M40 20l10 14 10-14M32 62h10M58 62h10',
  shirts: 'M34 14c4 8 28 8 32 0l24 12-8 20-12-4v46H30V42l-12 4-8-20zM50 24v0M42 40h16',
  trousers: 'M28 10h44l8 80H60l-10-52-10 52H20zM28 20h44M50 20v12',
  bags: 'M18 38h64l6 50H12zM34 38c0-24 32-24 32 0M30 50v6M70 50v6M12 74h76',
  hats: 'M8 68c0-6 10-8 18-9l4-31c1-8 39-8 40 0l4 31c8 1 18 3 18 9 0 12-84 12-84 0zM27 54c10 5 36 5 46 0',
  watches: 'M38 8h24l3 22H35zM35 70h30l-3 22H38zM50 28a22 22 0 1 0 .1 0zM50 38v12l8 5',
  sale: 'M12 46L46 12h34a8 8 0 0 1 8 8v34L54 88a6 6 0 0 1-8 0L12 54a6 6 0 0 1 0-8zM72 22a6 6 0 1 0 .1 0zM38 58l20-20M40 42v0M56 56v0',
}

/** The picture of a product; decoration, its name stands beside it. */
export function picture({ category, item }) {
  const tone = Number(item.slice(-2)) % 6
  const shape = drawn('path', { d: SHAPES[category] || SHAPES.sale, class: 'shape' })
  return drawn('svg', { viewBox: '-12 -12 124 124', class: `picture tone-${tone}`, 'aria-hidden': 'true', focusable: 'false' }, shape)
}
