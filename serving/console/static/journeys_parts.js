/** What the parts of this view are made of: a panel, a drawing, a choice, a table behind a line that opens it. */

/** A part of the page with a heading that can be gone to. */
export function panel(context, title, ...children) {
  const { element } = context
  const heading = element('h3', { tabindex: '-1' }, title)
  return { heading, node: element('section', { class: 'panel journeys-part' }, heading, ...children) }
}

/** A chart that comes, changes and goes with the numbers. */
export class Drawing {
  #context
  #chart = null
  #clicked

  /** clicked: is told the `customdata` of what was clicked on. */
  constructor(context, clicked = null) {
    this.#context = context
    this.#clicked = clicked
    this.node = context.element('div', {})
    const still = (event) => event.stopPropagation()
    if (clicked !== null) for (const begin of ['mousedown', 'touchstart']) this.node.addEventListener(begin, still, { capture: true, passive: true })
    this.said = context.element('p', { class: 'note' })
    this.place = context.element('div', { class: 'drawing' }, this.said, context.element('div', { class: 'scroll' }, this.node))
  }

  /** Draw; without traces nothing is there. said: what the chart shows, above it, where an axis would have no room. */
  show(traces, layout, description, said = '') {
    this.said.textContent = said
    this.said.hidden = said === ''
    this.place.hidden = traces.length === 0
    if (traces.length === 0) return this.remove()
    if (this.#chart === null) {
      this.#chart = this.#context.chart(this.node, traces, layout, description)
      if (this.#clicked !== null) this.#listen()
    } else {
      this.node.setAttribute('aria-label', description)
      this.#chart.update(traces, layout)
    }
    this.node.style.minHeight = `${layout.height}px`
  }

  remove() {
    this.#chart?.remove()
    this.#chart = null
  }

  /** Plotly tells of clicks once it has drawn; of none on a bar that it takes for one that is dragged. */
  #listen() {
    const observer = new MutationObserver(() => {
      observer.disconnect()
      this.node.on('plotly_click', ({ points }) => this.#clicked(points[0]?.customdata))
    })
    observer.observe(this.node, { attributeFilter: ['data-drawn'] })
  }
}

/** Buttons of which one is pressed: `[value, text]` each. */
export class Choice {
  #buttons = new Map()

  constructor(context, label, options, chosen) {
    const { element } = context
    for (const [value, text] of options) {
      const button = element('button', { type: 'button', class: 'chip', 'aria-pressed': 'false' }, text)
      button.addEventListener('click', () => chosen(value))
      this.#buttons.set(value, button)
    }
    this.node = element('div', { class: 'choice', role: 'group', 'aria-label': label }, ...this.#buttons.values())
  }

  show(value) {
    for (const [own, button] of this.#buttons) button.setAttribute('aria-pressed', String(own === value))
  }
}

/** A button. */
export function button(context, text, pressed, attributes = {}) {
  const made = context.element('button', { type: 'button', ...attributes }, text)
  made.addEventListener('click', pressed)
  return made
}

/** Content behind a line that opens it; whether it is open outlives what is in it. */
export class Folded {
  constructor(context, summary) {
    this.content = context.element('div', {})
    this.node = context.element('details', {}, context.element('summary', {}, summary), this.content)
  }

  show(...children) {
    this.node.hidden = children.length === 0
    this.content.replaceChildren(...children)
  }
}

/** A field with its label. */
export function labelled(context, text, field) {
  return context.element('label', {}, context.element('span', {}, text), field)
}

/** Fill a select; `options` are `[value, text]`. */
export function fill(context, select, options, value) {
  select.replaceChildren(...options.map(([own, text]) => context.element('option', { value: own }, text)))
  select.value = value
}
