/**
 * Events that no page waits for, and withdrawals: kept until the service has taken them, one request at a time.
 *
 * A batch has an Idempotency-Key and is sent again as it was, so it counts once; each event has its id beside, so one
 * that a page sent, too, counts once, as long as its visitor has had fewer than seven others since: the service remembers
 * no more. So a page does not ask while one of its visitor's is in doubt, or as many are on their way (`mustWait`). When
 * there are too many the oldest are dropped, and counted.
 */

import { randomUUID } from 'node:crypto'
import { Refusal, type Service } from './service.js'
import type { Wire } from './wire.js'

const BATCH = 100
const DELAY_MS = 100
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 30_000
// the service believes no older time
const OLDEST_MS = 24 * 3_600_000
// so many events of a visitor may be on their way at the same time: the service knows so many again
const AT_ONCE = 7

export class Outbox {
  /** Events that were taken, refused for what is in them, and dropped. */
  readonly counted = { sent: 0, refused: 0, dropped: 0 }
  readonly #service: Service
  readonly #limit: number
  readonly #warn: (kind: string, message: string) => void
  #waiting = new Set<Wire>()
  readonly #inDoubt = new Map<string, Set<Wire>>()
  readonly #onTheirWay = new Map<string, number>()
  #batch: { events: Wire[]; body: string; key: string } | undefined
  #flying = false
  #withdrawn = new Set<string>()
  #running: Promise<void> | undefined
  #wake: (() => void) | undefined
  #failures = 0
  #closing = false
  #ended = false

  /** limit: of events; warn: told what is wrong, and of which kind that is. */
  constructor(service: Service, limit: number, warn: (kind: string, message: string) => void) {
    this.#service = service
    this.#limit = limit
    this.#warn = warn
  }

  /** Events that wait. */
  get length(): number {
    return this.#waiting.size + (this.#batch?.events.length ?? 0)
  }

  add(events: Iterable<Wire>): void {
    for (const event of events) if (!this.#withdrawn.has(event.visitor)) this.#waiting.add(event)
    if (this.#ended) for (const event of this.#waiting) this.#drop(event)
    for (const oldest of this.#waiting) {
      if (this.length <= this.#limit) break
      this.#drop(oldest)
    }
    this.#start()
  }

  /** A page sends these; resolves or fails as it does. */
  async sending<Result>(events: readonly Wire[], send: () => Promise<Result>): Promise<Result> {
    const { visitor } = events[0]!
    const count = (more: number) => {
      const now = (this.#onTheirWay.get(visitor) ?? 0) + more
      if (now) this.#onTheirWay.set(visitor, now)
      else this.#onTheirWay.delete(visitor)
    }
    count(events.length)
    try {
      return await send()
    } finally {
      count(-events.length)
    }
  }

  /** A page has sent these, and nobody knows whether they arrived. */
  doubt(events: readonly Wire[]): void {
    this.add(events)
    for (const event of events) {
      if (!this.#waiting.has(event)) continue
      const own = this.#inDoubt.get(event.visitor) ?? new Set()
      this.#inDoubt.set(event.visitor, own.add(event))
    }
  }

  /** These came to the service in another way. */
  delete(events: Iterable<Wire>): void {
    for (const event of events) this.#done(event)
  }

  /** Whether a page of a visitor has to wait, because an event that came before it is in doubt, or too many may come to be. */
  mustWait(visitor: string): boolean {
    return this.#inDoubt.has(visitor) || (this.#onTheirWay.get(visitor) ?? 0) >= AT_ONCE
  }

  /** Have the service forget a visitor, and send nothing more of them. */
  withdraw(visitor: string): void {
    this.#withdrawn.add(visitor)
    if (!this.#flying) this.#forget()
    this.#start()
  }

  /** The service takes requests again: do not wait any longer. */
  wake(): void {
    if (this.#failures) this.#wake?.()
  }

  /** Send what waits, for so long at most; resolves to how many events are left. */
  async close(ms: number): Promise<number> {
    this.#closing = true
    this.#wake?.()
    this.#start()
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.#running, new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
    clearTimeout(timer)
    this.#ended = true
    return this.length
  }

  /** It need not be sent, or not again. */
  #done(event: Wire): void {
    this.#waiting.delete(event)
    const own = this.#inDoubt.get(event.visitor)
    if (own?.delete(event) && !own.size) this.#inDoubt.delete(event.visitor)
  }

  #drop(event: Wire): void {
    this.#done(event)
    this.counted.dropped += 1
    this.#warn('dropped', 'events wait for the service longer or in greater number than allowed; the oldest are dropped')
  }

  /** A batch is sent again as it was, unless somebody in it has said no: the ids tell the others apart. */
  #forget(): void {
    if (!this.#withdrawn.size) return
    this.#waiting = new Set([...(this.#batch?.events ?? []), ...this.#waiting])
    this.#batch = undefined
    for (const event of this.#waiting) if (this.#withdrawn.has(event.visitor)) this.#done(event)
  }

  #start(): void {
    if (this.#ended) return
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
      if (this.#waiting.size || this.#withdrawn.size) this.#start()
    })
  }

  async #run(): Promise<void> {
    await this.#pause(DELAY_MS)
    while (!this.#ended && (this.#batch || this.#waiting.size || this.#withdrawn.size)) {
      try {
        this.#flying = true
        await this.#one()
        this.#flying = false
        this.#failures = 0
      } catch (error) {
        this.#flying = false
        this.#forget()
        const refusal = error as Refusal
        this.#warn('outbox', `events wait for the service: ${refusal.message}`)
        const backoff = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures++, LONGEST_PAUSE_MS) * (1 - Math.random() / 2)
        await this.#pause(this.#closing ? DELAY_MS : Math.max(backoff, refusal.retryAfterMs))
      }
    }
  }

  /** The request that comes next. Throws a Refusal if it is to be made again. */
  async #one(): Promise<void> {
    const [visitor] = this.#withdrawn
    if (!this.#batch && visitor !== undefined) {
      await this.#service.post('/v1/visitors/erase', JSON.stringify({ visitor }))
      this.#withdrawn.delete(visitor)
      return
    }
    const batch = (this.#batch ??= this.#next())
    if (!batch) return
    try {
      await this.#service.post('/v1/events?scores=none', batch.body, { 'idempotency-key': batch.key })
      this.counted.sent += batch.events.length
      batch.events.forEach((event) => this.#done(event))
    } catch (error) {
      const { status, errors, message } = error as Refusal
      if (status !== 422 && status !== 400 && status !== 413) throw error
      this.#warn('refused', `events are refused: ${message}`)
      // one bad event has the whole array refused: it goes, the others come again
      const bad = new Set(errors.length ? errors.map(({ index }) => batch.events[index]) : batch.events)
      this.counted.refused += bad.size
      for (const event of batch.events) if (bad.has(event)) this.#done(event)
      this.#waiting = new Set([...batch.events.filter((event) => !bad.has(event)), ...this.#waiting])
    }
    this.#batch = undefined
  }

  #next(): { events: Wire[]; body: string; key: string } | undefined {
    const events: Wire[] = []
    for (const event of this.#waiting) {
      if (event.time < Date.now() - OLDEST_MS) {
        this.#drop(event)
        continue
      }
      this.#waiting.delete(event)
      if (events.push(event) === BATCH) break
    }
    return events.length ? { events, body: JSON.stringify(events), key: randomUUID() } : undefined
  }

  /** Wait, unless something is worth not to; a process need not live for it. */
  async #pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      timer = setTimeout(resolve, ms)
      if (!this.#closing) timer.unref()
    })
    clearTimeout(timer)
    this.#wake = undefined
  }
}
