/** `<script src="…/lotse.js" data-collector="…" data-key="…">`: the client as `window.lotse`. */

import { init, type Options } from './client.js'

const { src, dataset } = document.currentScript as HTMLScriptElement

;(window as { lotse?: unknown }).lotse = init({
  ...dataset,
  collector: dataset.collector || new URL(src).origin,
  thresholds: dataset.thresholds?.split(/[\s,]+/),
  hash: 'hash' in dataset,
  auto: dataset.auto !== 'false',
} as Options)
