/** What a request knows of its session: `request.lotse`. */

import { randomUUID } from 'node:crypto'
import type { Failure } from './circuit.js'
import type { Visitor } from './visitor.js'
import type { Answer, Details, Flag, PageEvent, Wire } from './wire.js'

/**
 * Why the scores are what they are. `ok`; `timeout`, `unavailable`, `refused`: the service did not answer in time, at all,
 * or not to this; `no_consent`: nothing may be sent; `no_event`: no page was asked for; `skipped`: a file, a program, a
 * page in advance. Others are the service's own, such as `store_unreachable`.
 */
export type Reason = 'ok' | Failure | 'no_consent' | 'no_event' | 'skipped' | (string & {})

export interface RequestLotse {
  /** Latest scores by head; empty without an answer. */
  readonly scores: Readonly<Record<string, number>>
  readonly flags: Readonly<Record<string, Flag>>
  /** The session's token, empty without an answer. It shows all that is held of the visitor: keep it out of addresses. */
  readonly session: string
  readonly reason: Reason
  /** Who flags are for, where another asks: the session's token, or the visitor's id. Empty if nobody is known. */
  readonly targetingKey: string
  /** Something else happened; sent behind the response. Never throws. */
  track(name: string, details?: Details): void
  /** The value of a flag; `fallback` without an answer, or if it is of another type. */
  flag<Value>(key: string, fallback: Value): Value
}

/** What is the same for all events of a request. */
export interface Origin {
  page: string
  device: string
}

export class SessionOfRequest implements RequestLotse {
  scores: Readonly<Record<string, number>> = {}
  flags: Readonly<Record<string, Flag>> = {}
  session = ''
  /** How long the request has waited for answers so far. */
  waitedMs = 0

  /** visitor, origin: null where nothing may be sent; later: takes events that nobody waits for; warn: told what is wrong. */
  constructor(
    public reason: Reason,
    readonly visitor: Visitor | null = null,
    readonly origin: Origin | null = null,
    private readonly later: (events: Wire[]) => void = () => {},
    private readonly warn: (kind: string, message: string) => void = () => {},
  ) {}

  get targetingKey(): string {
    return this.session || this.visitor?.id || ''
  }

  track(name: string, details: Details = {}): void {
    try {
      if (typeof name !== 'string' || !name) throw new TypeError('track wants the name of an event')
      const event = this.event({ ...details, name })
      if (event) this.later([event])
    } catch (error) {
      this.warn('track', `an event cannot be sent: ${(error as Error).message}`)
    }
  }

  flag<Value>(key: string, fallback: Value): Value {
    const value = Object.hasOwn(this.flags, key) ? this.flags[key]!.value : undefined
    return value !== undefined && (fallback === undefined || fallback === null || alike(value, fallback))
      ? (value as Value)
      : fallback
  }

  /** An event of this request as it is sent; none if nothing may be sent. */
  event({ name = 'page_view', ...details }: PageEvent, more: { page?: string; referrer?: string } = {}): Wire | undefined {
    if (!this.visitor || !this.origin) return
    const { id: visitor, purposes: consent } = this.visitor
    // what cannot be sent shows here, where it is told, and not in the queue
    const plain = JSON.parse(JSON.stringify(details)) as Details
    return { ...this.origin, ...more, ...plain, visitor, name, id: randomUUID(), time: Date.now(), consent }
  }

  /** The service has answered. */
  heard(answer: Answer): void {
    this.scores = answer.scores ?? {}
    this.flags = answer.flags ?? {}
    this.session = answer.session ?? ''
    this.reason = answer.reason || 'ok'
  }
}

const alike = (one: unknown, other: unknown) => typeof one === typeof other && Array.isArray(one) === Array.isArray(other)
