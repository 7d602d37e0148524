/**
 * What lies on the device, by consent: nothing; an id in sessionStorage, until the tab is closed; an id in a first-party
 * cookie or in localStorage, for 390 days as the service keeps linked visitors. With an id also what was not sent yet.
 */

import type { Purpose, Wire } from './vocabulary.js'

/** none: memory only; functional: this visit; full: visits are linked. */
export type Level = 'none' | 'functional' | 'full'

export interface Held {
  level: Level
  visitor: string
  purposes: readonly Purpose[]
}

const NAME = 'lotse'
const QUEUE = 'lotse.queue'
const COOKIE = ';path=/;samesite=lax;secure;max-age='
const SECONDS = 390 * 86_400

/** Storages throw where the browser's settings close them: then the page remembers as long as it is there. */
const attempt = <Value>(act: () => Value): Value | undefined => {
  try {
    return act()
  } catch {
    return
  }
}

const put = (where: Storage, name: string, value: string) => (value ? where.setItem(name, value) : where.removeItem(name))

const cookie = () => /(?:^|; )lotse=([^;]+)/.exec(document.cookie)?.[1]

/** What was held when the page came. The text is the id and what it may be used for: `12-34-56-78.measure.link`. */
export function held(): Held | undefined {
  const kept = cookie() || attempt(() => localStorage.getItem(NAME))
  const text = kept || attempt(() => sessionStorage.getItem(NAME))
  if (!text) return
  const [visitor, ...purposes] = text.split('.') as [string, ...Purpose[]]
  return { level: kept ? 'full' : 'functional', visitor, purposes }
}

/** Hold it where its consent allows, and nowhere else. */
export function hold({ level, visitor, purposes }: Held, storage?: 'cookie' | 'local'): void {
  const text = [visitor, ...purposes].join('.')
  const full = level === 'full' ? text : ''
  const local = storage === 'local'
  if (full && !local) {
    // once: a visit does not prolong what was consented to
    if (cookie() !== full) document.cookie = NAME + '=' + full + COOKIE + SECONDS
  } else if (cookie()) document.cookie = NAME + '=' + COOKIE + 0
  attempt(() => put(localStorage, NAME, local ? full : ''))
  attempt(() => put(sessionStorage, NAME, level === 'functional' ? text : ''))
}

/** Events that the page before could not send. */
export const left = (): Wire[] => attempt(() => JSON.parse(sessionStorage.getItem(QUEUE)!) as Wire[]) || []

/** Keep what is unsent, if that is allowed; whether it is. */
export const keep = (level: Level, queue: Wire[]): boolean =>
  !!attempt(() => {
    const allowed = level !== 'none'
    put(sessionStorage, QUEUE, allowed && queue[0] ? JSON.stringify(queue) : '')
    return allowed
  })
