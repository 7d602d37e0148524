/**
 * A small consent banner: opt-in, three equal buttons, withdrawn as easily as given.
 *
 * In a shadow root, so that neither page nor banner changes the other's looks; made of nodes and a constructed style
 * sheet, so that a strict Content Security Policy needs no exception; in system colours, which are legible light and dark.
 */

import type { Lotse } from './client.js'
import { signals } from './signals.js'
import type { Level } from './state.js'

export interface BannerOptions {
  /** `de` or `en`; the page's own language if it is left out. */
  lang?: string
  /** `never`: only listen to TCF and Consent Mode. */
  show?: 'auto' | 'never'
}

export interface Banner {
  /** Ask (again), for a link in the page's footer; an element with `data-lotse-consent` does it by itself. */
  open(): void
}

const TEXTS = {
  en: {
    title: 'May we measure your visit?',
    text:
      'We count pages and clicks to see where a visit is heading, without name or address. Decline: nothing is kept on your device. This visit: a random number until you close the tab. Allow: a random number for 13 months, which tells us that you came back. You can change this at any time.',
    objects: 'Your browser asks not to link visits. We keep to it.',
    none: 'Decline',
    functional: 'This visit',
    full: 'Allow',
    again: 'Privacy settings',
  },
  de: {
    title: 'Dürfen wir Ihren Besuch messen?',
    text:
      'Wir zählen Seiten und Klicks, um zu sehen, wohin ein Besuch führt, ohne Namen und Adresse. Ablehnen: Auf Ihrem Gerät wird nichts gespeichert. Dieser Besuch: eine Zufallszahl, bis Sie den Tab schließen. Erlauben: eine Zufallszahl für 13 Monate, an der wir erkennen, dass Sie wieder da sind. Sie können das jederzeit ändern.',
    objects: 'Ihr Browser bittet, Besuche nicht zu verknüpfen. Daran halten wir uns.',
    none: 'Ablehnen',
    functional: 'Dieser Besuch',
    full: 'Erlauben',
    again: 'Datenschutz-Einstellungen',
  },
}

const STYLE = `
:host{all:initial;color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}
[hidden]{display:none!important}
section,.again{position:fixed;z-index:2147483647;box-sizing:border-box;background:Canvas;color:CanvasText;border:1px solid;border-radius:.5rem}
section{inset:auto 1rem 1rem;max-width:42rem;max-height:calc(100vh - 2rem);overflow:auto;margin:auto;padding:1rem 1.25rem}
h2{margin:0;font-size:1.15rem}
p{margin:.5rem 0 1rem}
div{display:flex;flex-wrap:wrap;gap:.75rem}
button{font:inherit;cursor:pointer;min-height:2.75rem;padding:.25rem 1rem}
div button{flex:1 1 9rem;background:CanvasText;color:Canvas;border:2px solid CanvasText;border-radius:.25rem}
[aria-pressed=true]{text-decoration:underline;text-underline-offset:.25em;text-decoration-thickness:2px}
.again{inset:auto auto 1rem 1rem;font-size:.875rem}
:focus-visible{outline:3px solid CanvasText;outline-offset:3px}
.again:focus-visible{outline-offset:-6px}
h2:focus{outline:0}`

// the choice is kept, a refusal too, or every page would ask again: a word and the day, which tell nobody from another
const CHOICE = 'lotse-consent'
const DAYS = 390

const make = <Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag, properties: Partial<HTMLElementTagNameMap[Tag]> & { role?: string }, ...children: Node[]
): HTMLElementTagNameMap[Tag] => {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

/** Show the banner unless there is a choice, or somebody else asks. */
export function banner(lotse: Pick<Lotse, 'consent'>, options: BannerOptions = {}): Banner {
  const signalled = signals(lotse)
  const language = (options.lang || document.documentElement.lang || navigator.language).slice(0, 2) === 'de' ? 'de' : 'en'
  const texts = TEXTS[language]
  const browser = navigator as Navigator & { globalPrivacyControl?: boolean }
  const objects = browser.globalPrivacyControl || browser.doNotTrack === '1'
  let choice: Level | undefined
  try {
    const [level, day] = localStorage.getItem(CHOICE)!.split(' ') as [Level, string]
    if (Date.now() - Date.parse(day) < DAYS * 86_400_000) choice = level
  } catch {
    // none, or closed by the browser's settings: asked
  }

  let focused: Element | null = null
  const title = make('h2', { id: 'title', tabIndex: -1, textContent: texts.title })
  const buttons = (['none', 'functional', 'full'] as const)
    .filter((level) => level !== 'full' || !objects)
    .map((level) => make('button', { type: 'button', textContent: texts[level], value: level, onclick: () => choose(level) }))
  const text = make('p', { id: 'text', textContent: texts.text + (objects ? ' ' + texts.objects : '') })
  const section = make('section', { role: 'dialog', lang: language, hidden: true }, title, text, make('div', {}, ...buttons))
  section.setAttribute('aria-labelledby', 'title')
  section.setAttribute('aria-describedby', 'text')
  const again = make('button', { type: 'button', className: 'again', lang: language, textContent: texts.again, onclick: () => open() })
  const elsewhere = () => document.querySelector('[data-lotse-consent]')

  const close = () => {
    section.hidden = true
    again.hidden = !!elsewhere() || signalled
    const back = focused && focused !== document.body && focused !== host ? (focused as HTMLElement) : again
    back.focus()
  }
  const choose = (level: Level) => {
    choice = level
    try {
      localStorage.setItem(CHOICE, level + ' ' + new Date().toISOString().slice(0, 10))
    } catch {
      // closed: asked again on the next page
    }
    lotse.consent(level)
    close()
  }
  const open = () => {
    focused = document.activeElement
    for (const button of buttons) {
      if (choice) button.setAttribute('aria-pressed', `${button.value === choice}`)
    }
    section.hidden = false
    again.hidden = true
    title.focus({ preventScroll: true })
  }
  // leaves everything as it is, and no choice is no consent
  section.onkeydown = ({ key }) => {
    if (key === 'Escape') close()
  }

  const host = document.createElement('lotse-consent')
  const root = host.attachShadow({ mode: 'open' })
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(STYLE)
  root.adoptedStyleSheets = [sheet]
  root.append(section, again)
  again.hidden = true
  // first in the page: it is what the first Tab reaches
  document.body.prepend(host)
  document.addEventListener('click', (event) => {
    if ((event.target as Element).closest?.('[data-lotse-consent]')) {
      event.preventDefault()
      open()
    }
  })

  if (options.show !== 'never' && !signalled) {
    if (choice) {
      lotse.consent(choice)
      again.hidden = !!elsewhere()
    } else open()
  }
  return { open }
}
