/** The client: consent, events, and what the service answers. */

import { device } from './device.js'
import { engagement } from './engagement.js'
import { outbox } from './outbox.js'
import { changes, entry, path } from './pages.js'
import { Session } from './session.js'
import { held, hold, keep, left, type Held, type Level } from './state.js'
import { stream } from './stream.js'
import { camel, NAMES, type Details, type EventName, type Fields, type Helpers, type Purpose } from './vocabulary.js'

export interface Options {
  /** Where the service is, such as `https://lotse.shop.example`. */
  collector: string
  /** A public key (`lotse keys create --kind public`). */
  key?: string
  /** What holds for a visitor who was never asked; `none` if it is left out. */
  consent?: Level
  /** Where the id of a visitor lies who consented to `full`; `cookie` if it is left out. */
  storage?: 'cookie' | 'local'
  /** Scores to be told of when they cross, such as `conversion:0.3`. */
  thresholds?: readonly string[]
  /** Whether what stands behind the `#` is another page. */
  hash?: boolean
  /** Page views and engagement without a call for each; on if it is left out. */
  auto?: boolean
  /** How long an event waits for others, 200 ms if it is left out, and the first pause after a failure, 1000 ms. */
  delayMs?: number
  retryMs?: number
}

export interface Lotse extends Helpers {
  readonly session: Session
  /** The consent that holds. */
  readonly level: Level
  /** Something happened; `name` is one of the vocabulary or one that configs/shop.toml maps. */
  track(name: EventName | (string & {}), details?: Details): void
  /** Change the consent, at once. Without `purposes`, all that the level allows. */
  consent(level: Level, purposes?: readonly Purpose[]): void
  /** Send what is waiting; resolves when it is answered or has failed. */
  flush(): Promise<void>
  /** Ask for the scores as of now: idle time counts. */
  refresh(): Promise<void>
}

const LEVELS: readonly Level[] = ['none', 'functional', 'full']
const ALLOWED: Record<Level, readonly Purpose[]> = {
  none: [],
  functional: ['measure'],
  full: ['measure', 'link', 'personalise'],
}

// of 128 random bits, also where a page without TLS has no randomUUID
const random = () => crypto.getRandomValues(new Uint32Array(4)).join('-')

/** Start. Once a page. */
export function init(options: Options): Lotse {
  const { key, thresholds = [], hash, storage, auto = true, delayMs = 200, retryMs = 1000 } = options
  const address = (tail: string) =>
    options.collector.replace(/\/$/, '') + '/v1/' + tail + (key ? (tail.includes('?') ? '&' : '?') + 'key=' + key : '')
  const session = new Session()
  const refresh = async () => {
    const response = session.token && (await fetch(address('sessions/' + session.token), { credentials: 'omit' }).catch(() => undefined))
    if (response && response.ok) session.tell('scores', await response.json())
  }
  const follow = stream(address, thresholds, session, refresh)
  const browser = navigator as Navigator & { globalPrivacyControl?: boolean }
  let state: Held
  let page = path(hash)

  /** A consent, less what the browser objects to and what was not asked for. */
  const consented = (level: Level, visitor: string, purposes = ALLOWED[level]): Held => {
    if (browser.globalPrivacyControl || browser.doNotTrack === '1') purposes = purposes.filter((one) => one === 'measure')
    return { level: level === 'full' && !purposes.includes('link') ? 'functional' : level, visitor, purposes }
  }

  const before = held()
  state = before
    ? consented(before.level, before.visitor, before.purposes)
    : consented(options.consent || 'none', random())
  hold(state, storage)

  const box = outbox(
    address('events'),
    left(),
    (answer) => {
      session.token = answer.session
      session.tell('scores', answer)
      follow()
    },
    (queue) => keep(state.level, queue),
    delayMs,
    retryMs,
  )

  /** Have the service forget a session's visitor; a service that cannot is not asked for ever. */
  const erase = async (token: string, tries = 0): Promise<void> => {
    const again = await fetch(address('visitors/me'), {
      method: 'DELETE', headers: { authorization: 'Bearer ' + token }, keepalive: true, credentials: 'omit',
    }).then(({ status }) => status === 429 || status > 499, () => true)
    if (again && tries < 8) setTimeout(erase, retryMs * 2 ** tries, token, tries + 1)
  }

  const track = (name: string, { items, ...details }: Details = {}, more?: Fields) =>
    box.add(
      (items?.[0] ? items : [{}]).map((item, place) => ({
        visitor: state.visitor,
        name,
        id: random(),
        time: Date.now(),
        page,
        device: browser.webdriver ? 'bot' : device(browser.userAgent),
        utc_offset: -new Date().getTimezoneOffset(),
        consent: state.purposes,
        ...details,
        ...item,
        ...(place ? { value: 0 } : more),
      })),
    )

  const lotse = {
    session,
    get level() {
      return state.level
    },
    track,
    consent(level: Level, purposes?: readonly Purpose[]) {
      const { level: was, visitor } = state
      state = consented(level, visitor, purposes)
      if (LEVELS.indexOf(state.level) < LEVELS.indexOf(was)) {
        state = { ...state, visitor: random() }
        // an event that is under way would begin what was erased anew
        box.clear().then(() => {
          const { token } = session
          session.token = ''
          session.scores = {}
          follow()
          if (token) erase(token)
        })
      }
      hold(state, storage)
      box.send()
    },
    flush: box.send,
    refresh,
  } as unknown as Lotse
  for (const name of NAMES.split(' ')) {
    ;(lotse as unknown as Record<string, unknown>)[camel(name)] = (details?: Details) => track(name, details)
  }

  const seen = engagement((name, value) => auto && track(name, { value }))
  const opened = (from: Fields) => {
    if (auto) track('page_view', {}, from)
    seen.next()
  }
  const begin = () => {
    opened(entry(location.origin + page, location.search, document.referrer))
    changes(hash, (now) => {
      seen.unseen()
      page = now
      opened({ channel: 'internal' })
    })
  }

  addEventListener('online', box.send)
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'hidden') {
      seen.unseen()
      box.send()
    } else seen.seen()
    follow()
  })
  addEventListener('pagehide', () => {
    seen.unseen()
    box.leave()
  })
  // a page from the back/forward cache goes on where it was
  addEventListener('pageshow', (event) => event.persisted && opened({ channel: 'internal' }))
  // a page that the browser loads in advance is none before it is shown
  if ((document as Document & { prerendering?: boolean }).prerendering) {
    document.addEventListener('prerenderingchange', begin, { once: true })
  } else begin()
  return lotse
}
