/**
 * The view "Journeys": paths, funnels, where sessions end, how long they stay, who leaves at once and who comes back.
 *
 * All numbers are those of `GET /v1/insight/journeys`; the page adds and divides them for display and counts nothing.
 */

import { Cohorts } from './journeys_cohorts.js'
import { Controls, notes, tiles } from './journeys_controls.js'
import { Dwell } from './journeys_dwell.js'
import { Endings } from './journeys_endings.js'
import { Funnels } from './journeys_funnel.js'
import { button } from './journeys_parts.js'
import { Paths } from './journeys_paths.js'
import { Returning } from './journeys_returning.js'
import { question, read, written } from './journeys_state.js'

export { texts } from './journeys_texts.js'

// three moves are legible on a telephone, four beside a report
const MOVES = { narrow: 3, wide: 4 }

/** Shows the view in `root`. */
export async function mount(root, context) {
  const view = new View(root, context)
  await view.ask()
  return () => view.leave()
}

class View {
  #context
  #state
  #asked = ''
  #answer = null
  #waiting = new AbortController()
  #parts = null

  constructor(root, context) {
    this.#context = context
    const { element, t } = context
    this.#state = read(context.params, matchMedia('(max-width: 700px)').matches ? MOVES.narrow : MOVES.wide)
    this.controls = new Controls(context, this)
    this.status = element('p', { class: 'note status', role: 'status' })
    this.content = element('div', { class: 'journeys' })
    root.append(element('p', { class: 'note' }, t('intro')), this.controls.node, this.status, this.content)
    this.controls.show(null, this.#state)
    // another view is chosen while this one is being counted
    context.signal?.addEventListener('abort', () => this.leave(), { once: true })
  }

  /** Another state: what is known is shown at once, what is not is asked for. */
  change(part) {
    const state = { ...this.#state, ...part }
    // what is left out can be neither a begin nor a goal
    for (const name of ['begin', 'goal']) state[name] = state[name].filter((step) => !state.without.includes(step))
    this.#state = state
    this.#context.setParams(written(state))
    return this.ask()
  }

  toFunnel(step) {
    this.#parts?.funnels.add(step)
  }

  async ask() {
    const { api, ApiError, failure, t } = this.#context
    const asked = question(this.#state)
    this.#waiting.abort()
    this.#waiting = new AbortController()
    const { signal } = this.#waiting
    try {
      if (asked !== this.#asked || this.#answer === null) {
        this.status.textContent = t('counting')
        this.content.setAttribute('aria-busy', 'true')
        const answer = await api(asked, { signal })
        if (signal.aborted) return
        this.#asked = asked
        this.#answer = answer
      }
      this.#show(this.#answer)
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) console.error(error)
      this.#clear()
      this.#answer = null
      this.status.textContent = ''
      this.content.replaceChildren(failure(error, () => this.ask()))
    }
    this.content.removeAttribute('aria-busy')
  }

  leave() {
    this.#waiting.abort()
    this.#clear()
  }

  #show(found) {
    const { element, empty, number, t } = this.#context
    this.controls.show(found, this.#state)
    if (found.sessions === null) {
      this.#clear()
      this.status.textContent = ''
      this.content.replaceChildren(empty(t('nobody'), t('nobodyHint', { least: number(found.least_visitors, 0) })))
      return
    }
    const parts = (this.#parts ??= this.#made())
    for (const part of Object.values(parts)) part.show(found, this.#state)
    const counted = notes(this.#context, found)
    this.figures.replaceChildren(tiles(this.#context, found))
    this.counted.replaceChildren(counted.node)
    this.#contents([...Object.values(parts), counted])
    const said = t('counted', { sessions: number(found.sessions, 0) })
    if (this.status.textContent !== said) this.status.textContent = said
  }

  /** The parts, empty. */
  #made() {
    const context = this.#context
    const { element, t } = context
    const parts = {
      paths: new Paths(context, this),
      funnels: new Funnels(context, this),
      endings: new Endings(context),
      dwell: new Dwell(context),
      cohorts: new Cohorts(context),
      returning: new Returning(context),
    }
    this.figures = element('div', {})
    this.contents = element('nav', { class: 'controls contents', 'aria-label': t('contents') })
    this.counted = element('div', {})
    this.content.replaceChildren(this.figures, this.contents, ...Object.values(parts).map((part) => part.node), this.counted)
    return parts
  }

  /** Buttons that lead to the parts: links would change what the address says. */
  #contents(parts) {
    this.contents.replaceChildren(...parts.map(({ heading, title }) => button(this.#context, title ?? heading.textContent, () => {
      heading.scrollIntoView({ block: 'start' })
      heading.focus({ preventScroll: true })
    }, { class: 'chip' })))
  }

  #clear() {
    for (const part of Object.values(this.#parts ?? {})) part.remove()
    this.#parts = null
    this.content.replaceChildren()
  }
}
