/**
 * No request waits longer than it may, and none at all while the service is away: after some failures in a row nobody
 * asks for a while, then one request finds out.
 */

import CircuitBreaker from 'opossum'
import { Refusal } from './service.js'

/** Why there is no answer: it took too long, the service is away, or it does not take this. */
export type Failure = 'timeout' | 'unavailable' | 'refused'

export class Circuit {
  readonly #breaker: CircuitBreaker<[() => Promise<unknown>], unknown>
  readonly #timeoutMs: number
  #failures = 0

  /** timeoutMs: for a request; failures: in a row, until nobody asks for pauseMs. */
  constructor(timeoutMs: number, failures: number, pauseMs: number) {
    this.#timeoutMs = timeoutMs
    this.#breaker = new CircuitBreaker((send: () => Promise<unknown>) => send(), {
      timeout: timeoutMs,
      resetTimeout: pauseMs,
      rollingPercentilesEnabled: false,
      // a share of failures says nothing of now: after thousands of answers it takes thousands of failures to move it
      volumeThreshold: Number.MAX_SAFE_INTEGER,
      // what is refused for what is in it was answered
      errorFilter: (error: unknown) => error instanceof Refusal && !error.passes,
    })
    this.#breaker.on('success', () => (this.#failures = 0))
    this.#breaker.on('failure', () => {
      this.#failures += 1
      if (this.#failures >= failures && this.#breaker.closed) this.#breaker.open()
    })
  }

  /** What is sent is answered with, if that comes in time (`ms`, if less is left of it). Throws otherwise, or at once if nobody asks now. */
  async ask<Value>(send: () => Promise<Value>, ms = this.#timeoutMs): Promise<Value> {
    const asked = this.#breaker.fire(send) as Promise<Value>
    if (ms >= this.#timeoutMs) return asked
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(Object.assign(new Error('Timed out'), { code: 'ETIMEDOUT' })), ms)
    })
    return Promise.race([asked, late]).finally(() => clearTimeout(timer))
  }

  /** Whether nobody asks now. */
  get open(): boolean {
    return !this.#breaker.closed
  }

  close(): void {
    this.#breaker.shutdown()
  }
}

/** What an error of `ask` means. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Refusal && !error.passes) return 'refused'
  return (error as { code?: string }).code === 'ETIMEDOUT' ? 'timeout' : 'unavailable'
}
