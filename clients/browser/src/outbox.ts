/**
 * Events on their way to the service: in batches, one request at a time, kept until they are answered.
 *
 * A record remembers the ids of its latest seven events, so a batch holds seven at most: one that is sent again because
 * its answer was lost counts once.
 */

import type { Answer } from './session.js'
import type { Wire } from './vocabulary.js'

const BATCH = 7
const MOST = 500
const LONGEST_MS = 60_000

export interface Outbox {
  add(events: Wire[]): void
  /** Send now what there is; resolves when the request under way has its answer or has failed. */
  send(): Promise<void>
  /** The page may be gone the next moment: hand everything to the browser. */
  leave(): void
  /** Forget what was not sent; resolves when nothing is under way any more. */
  clear(): Promise<void>
}

/**
 * url: of `POST /v1/events`, key included; queue: left over by the page before; answered: told the latest answer;
 * keep: told what is unsent, returns whether it outlives the page; delayMs: how long events wait for others; retryMs: the
 * first pause after a failure, which doubles.
 */
export function outbox(
  url: string,
  queue: Wire[],
  answered: (answer: Answer) => void,
  keep: (queue: Wire[]) => boolean,
  delayMs: number,
  retryMs: number,
): Outbox {
  let failures = 0
  let notBefore = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  let flight: Promise<void> | undefined

  const body = (events: Wire[]) => JSON.stringify(events.map((event) => ({ ...event, sent_at: Date.now() })))

  const drop = (gone: Wire[]) => {
    queue = queue.filter((event) => !gone.includes(event))
    keep(queue)
  }

  const later = (ms: number) => {
    timer ??= setTimeout(send, ms)
  }

  const fly = async () => {
    const batch = queue.slice(0, BATCH)
    let wait = 0
    try {
      // no header that has to be asked for first, and sent to its end if the page goes
      const response = await fetch(url, {
        method: 'POST', body: body(batch), keepalive: true, credentials: 'omit', signal: AbortSignal.timeout(20_000),
      })
      const { status } = response
      if (status === 408 || status === 429 || status > 499) {
        const told = response.headers.get('retry-after')
        wait = told ? (+told ? +told * 1000 : Date.parse(told) - Date.now()) || 0 : 0
        notBefore = Date.now() + wait
        throw status
      }
      if (response.ok) {
        answered((await response.json()).results.pop())
        drop(batch)
      } else {
        // one bad event has the whole array refused: it goes, the others come again
        const { detail, errors } = await response.json().catch(() => ({}))
        console.warn('lotse:', status, detail)
        drop(errors ? errors.map((error: { index: number }) => batch[error.index]) : batch)
      }
      failures = 0
    } catch {
      later(Math.max(wait, Math.min(retryMs * 2 ** failures++, LONGEST_MS) * (1 - Math.random() / 2)))
    }
  }

  const send = async (): Promise<void> => {
    clearTimeout(timer)
    timer = undefined
    const wait = notBefore - Date.now()
    if (wait > 0) return later(wait)
    if (flight || !queue[0]) return flight
    await (flight = fly())
    flight = undefined
    if (queue[0] && !timer) return send()
  }

  if (queue[0]) later(delayMs)

  return {
    add(events) {
      queue = [...queue, ...events].slice(-MOST)
      keep(queue)
      if (!flight) later(delayMs)
    },
    send,
    leave() {
      // what the next page can send is not risked where nobody would see it fail
      if ((failures || !navigator.onLine) && keep(queue)) return
      for (let batch; (batch = queue.slice(0, BATCH))[0] && navigator.sendBeacon(url, body(batch)); ) drop(batch)
    },
    async clear() {
      drop(queue)
      await flight
    },
  }
}
