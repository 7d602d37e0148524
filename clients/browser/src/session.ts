/** The running session as the service sees it: scores, crossings of thresholds, in time flags of experiments. */

/** What `POST /v1/events` and `GET /v1/sessions/{token}` answer. */
export interface Answer {
  session: string
  status: string
  events: number
  scores: Record<string, number>
  models?: Record<string, string>
  decided?: string[]
  reasons?: Record<string, string>
  reason?: string
}

/** A score that has crossed one of the thresholds. */
export interface Crossing {
  head: string
  threshold: number
  direction: 'up' | 'down'
  score: number
  scores: Record<string, number>
}

/** What the session tells, by type: `event.detail`. */
export interface Told {
  /** The scores after events of this page, or of `refresh`. */
  scores: Answer
  threshold: Crossing
  /** So many seconds without an event; told with thresholds only. */
  idle: { idle_seconds: number; scores: Record<string, number> }
  /** Reserved for flags of experiments; nothing tells them yet. */
  flags: Record<string, unknown>
}

export type SessionEvent = { [Type in keyof Told]: CustomEvent<Told[Type]> & { type: Type } }[keyof Told]

type Listener<Type extends keyof Told> = (event: CustomEvent<Told[Type]>) => void

export interface Session {
  addEventListener<Type extends keyof Told>(type: Type, listener: Listener<Type>, options?: AddEventListenerOptions | boolean): void
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: AddEventListenerOptions | boolean): void
  removeEventListener<Type extends keyof Told>(type: Type, listener: Listener<Type>, options?: EventListenerOptions | boolean): void
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: EventListenerOptions | boolean): void
}

/** An EventTarget, and an async iterable of everything that is told from the first `next()` on. */
export class Session extends EventTarget {
  /** The right to see this session; empty before the first answer. */
  token = ''
  /** The latest scores by head. */
  scores: Record<string, number> = {}

  /** Tell those who listen. */
  tell<Type extends keyof Told>(type: Type, detail: Told[Type]): void {
    this.scores = (detail as Partial<Answer>).scores || this.scores
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SessionEvent, void, undefined> {
    const types = ['scores', 'threshold', 'idle', 'flags'] as const
    const told: SessionEvent[] = []
    let wake: () => void
    const listener = (event: Event) => {
      told.push(event as SessionEvent)
      wake?.()
    }
    types.map((type) => this.addEventListener(type, listener))
    try {
      for (;;) {
        while (told[0]) yield told.shift()!
        await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      types.map((type) => this.removeEventListener(type, listener))
    }
  }
}
