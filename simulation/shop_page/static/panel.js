/** What Lotse sees of this visit: scores as they change, silence, flags, reasons, and where it stands among the crowd. */

import { crowd } from './crowd.js'
import { HEADS, historyOf, MOMENTS } from './history.js'
import { clock, count, percent, t } from './language.js'
import { line } from './line.js'
import { element, show } from './nodes.js'
import { explained, reasonsOf } from './reasons.js'

// events that come together are explained together
const EXPLAIN_MS = 250

export function panel(place, lotse, shop) {
  const { session } = lotse
  const { collector, thresholds } = shop
  // shown in detail: what help is offered by, until the visitor chooses another
  let head = 'bounce'
  let isChosen = false
  let explanations = {}
  let timer

  const rows = Object.fromEntries(HEADS.map((name) => {
    const drawing = line(name, thresholds[name])
    const value = element('output', { class: 'value', 'data-head': name }, '–')
    const brief = element('span', { class: 'brief' }, '–')
    const node = element('div', { class: `score ${name}` },
      element('div', {}, element('b', {}, t(name)), element('span', { class: 'quiet small' }, t(`${name}Text`))), drawing.node, value)
    return [name, { drawing, value, brief, node }]
  }))
  const age = element('dd', { class: 'age' }, '–')
  const idle = element('dd', { class: 'idle' }, '–')
  const events = element('dd', { class: 'events' }, '–')
  const moments = MOMENTS.map((seconds) => element('li', { 'data-seconds': seconds }, `${seconds} s`))
  const state = element('p', { class: 'note' }, t('waiting'))
  const flags = element('ul', { class: 'flags' })
  const told = element('ol', { class: 'told' })
  const reasons = reasonsOf(shop)
  const others = crowd()
  const legend = element('p', { class: 'quiet small legend' })
  const choice = element('div', { class: 'choice', role: 'group', 'aria-label': t('reasonsOf') }, HEADS.map((name) =>
    element('button', { 'aria-pressed': name === head, value: name, onclick: () => {
      isChosen = true
      choose(name)
    } }, t(name))))

  const choose = (name) => {
    head = name
    for (const button of choice.children) button.setAttribute('aria-pressed', button.value === head)
    reasons.draw(explanations[head])
    others.draw(head, history.scores[head])
  }

  const history = historyOf(session, (type) => {
    if (type === 'told') {
      show(told, history.told.map(({ name, about }) => element('li', {}, element('code', {}, name), about && ` ${about}`)))
      tick()
      return
    }
    state.hidden = true
    update()
    if (!timer) timer = setTimeout(explain, EXPLAIN_MS)
  })

  async function explain() {
    timer = undefined
    const { token } = session
    const answer = token && (await explained(collector, token))
    if (!answer || token !== session.token) return
    explanations = answer.explanations || {}
    reasons.draw(explanations[head])
  }

  function update() {
    // the flag's rule: a bounce is asked of the first step, an exit of later ones
    const asked = history.decided.includes('bounce') ? 'exit' : 'bounce'
    for (const name of HEADS) {
      const score = history.scores[name]
      const { drawing, value, brief, node } = rows[name]
      const text = score === undefined ? '–' : percent(score)
      const settled = history.decided.includes(name)
      show(value, text, settled && element('span', { class: 'quiet small' }, t('settled')))
      value.dataset.value = score ?? ''
      brief.textContent = text
      const counts = name === asked
      drawing.counts(counts)
      node.classList.toggle('above', counts && score > thresholds[name])
    }
    show(legend, thresholds[asked] && t('offered', { head: t(asked), value: percent(thresholds[asked]) }))
    if (!isChosen && head !== asked) choose(asked)
    events.textContent = count(history.events)
    for (const moment of moments) moment.classList.toggle('reached', Number(moment.dataset.seconds) <= history.moment)
    others.draw(head, history.scores[head])
    tick()
  }

  // the clock is the page's own: nothing is asked for
  function tick() {
    const now = Date.now()
    if (history.told.length) {
      age.textContent = clock((now - history.begun) / 1000)
      idle.textContent = clock((now - history.last) / 1000)
    }
    for (const name of HEADS) {
      const { drawing } = rows[name]
      drawing.draw(history.lines[name], now)
      const score = history.scores[name]
      if (score !== undefined) drawing.node.setAttribute('aria-label', t('lineOf', { head: t(name), value: percent(score) }))
    }
  }
  setInterval(tick, 1000)

  const content = element('div', { id: 'seen', class: 'seen' },
    state,
    element('section', { 'aria-label': t('scores') }, HEADS.map((name) => rows[name].node), legend),
    element('dl', { class: 'facts' }, element('div', {}, element('dt', {}, t('age')), age), element('div', {}, element('dt', {}, t('idle')), idle),
      element('div', {}, element('dt', {}, t('events')), events)),
    element('ol', { class: 'moments', 'aria-label': t('idle') }, moments),
    element('section', {}, element('h3', {}, t('flags')), flags),
    element('section', {}, element('h3', {}, t('reasons')), choice, reasons.node),
    element('section', {}, element('h3', {}, t('crowd')), others.node),
    element('section', {}, element('h3', {}, t('told')), told, element('button', { class: 'small', onclick: () => hold() }, t('held'))))

  const toggle = element('button', { class: 'toggle', 'aria-expanded': false, 'aria-controls': 'seen', onclick: () => {
    const open = place.classList.toggle('open')
    toggle.setAttribute('aria-expanded', open)
    toggle.setAttribute('aria-label', t(open ? 'close' : 'open'))
  }, 'aria-label': t('open') }, HEADS.map((name) => element('span', { class: name }, `${t(name)} `, rows[name].brief)))

  const dialog = element('dialog', { 'aria-labelledby': 'held-title' })
  async function hold() {
    const response = session.token && (await fetch(`${collector}/v1/visitors/me?token=${session.token}`, { credentials: 'omit' }).catch(() => undefined))
    const text = response?.ok ? JSON.stringify(await response.json(), undefined, 2) : t('heldNone')
    show(dialog, element('h2', { id: 'held-title' }, t('heldTitle')), element('pre', { tabindex: 0 }, text),
      element('button', { onclick: () => dialog.close() }, t('done')))
    dialog.showModal()
  }

  place.setAttribute('aria-labelledby', 'panel-title')
  show(place, element('div', { class: 'title' }, element('h2', { id: 'panel-title' }, t('panel')),
    element('a', { href: `${collector}/console#live`, target: '_blank', rel: 'noopener', title: t('consoleTitle') }, t('console'))), toggle, content, dialog)
  choose(head)
  return {
    /** Show the flags as they are now. */
    flags: (found) => show(flags, found.length ? found.map(({ key, value, reason }) =>
      element('li', { 'data-flag': key, 'data-value': JSON.stringify(value) }, element('code', {}, key), ' ', element('b', {}, String(value)), ' ',
        element('span', { class: 'quiet small' }, reason))) : element('li', { class: 'quiet' }, t('noFlags'))),
  }
}
