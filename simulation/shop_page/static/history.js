/** What the service has said of the session: every score with the moment it came, and since when the visitor is silent. */

import { heard } from './telling.js'

const KEPT_MS = 120_000
export const HEADS = ['bounce', 'conversion', 'exit']
/** Moments of silence that the service tells of. */
export const MOMENTS = [5, 10, 30, 60]

export function historyOf(session, changed) {
  const history = { token: '', begun: 0, last: 0, events: 0, moment: 0, decided: [], scores: {}, told: [], lines: {} }

  const forget = () => {
    Object.assign(history, { token: session.token, begun: Date.now(), last: Date.now(), events: 0, moment: 0, decided: [], scores: {} })
    history.lines = Object.fromEntries(HEADS.map((head) => [head, []]))
  }
  forget()

  const note = (scores) => {
    const at = Date.now()
    history.scores = scores
    for (const head of HEADS) {
      const line = history.lines[head]
      if (scores[head] === undefined) continue
      if (line.at(-1)?.score !== scores[head]) line.push({ at, score: scores[head] })
      // the one before the window says how the line begins
      while (line.length > 1 && line[1].at < at - KEPT_MS) line.shift()
    }
  }

  const hear = (type, act) =>
    session.addEventListener(type, ({ detail }) => {
      if (history.token !== session.token) {
        // with consent to link the visit goes on under another token, and its events are counted on
        if (history.token && !(detail.events > history.events)) forget()
        history.token = session.token
      }
      act(detail)
      note(detail.scores)
      changed(type)
    })
  hear('scores', (answer) => {
    if (answer.events !== history.events) history.moment = 0
    history.events = answer.events
    history.decided = answer.decided || []
  })
  hear('threshold', () => {})
  hear('idle', ({ idle_seconds: seconds }) => { history.moment = seconds })
  heard((name, { item, category }) => {
    const now = Date.now()
    if (!history.told.length) history.begun = now
    history.last = now
    history.told = [{ name, about: item || category || '', at: now }, ...history.told].slice(0, 5)
    changed('told')
  })
  return history
}
