/** The service over HTTP, on connections that are kept open. */

import { Pool } from 'undici'
import type { Answer, Wire } from './wire.js'

const CONNECTIONS = 32
// shorter than the service keeps idle ones (server.keep_alive_seconds), so that none is used that it is closing
const IDLE_MS = 30_000
const LONGEST_MS = 10_000
const LONGEST_PAUSE_MS = 300_000

/** The service did not take what was sent; `status` 0: nobody answered. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterMs = 0,
    /** Of an array of events what is wrong with which. */
    readonly errors: readonly { index: number; field: string; expected: string }[] = [],
  ) {
    super(message)
  }

  /** Whether the same request may be taken later. */
  get passes(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 409 || this.status === 429 || this.status > 499
  }
}

export class Service {
  readonly #pool: Pool
  readonly #base: string
  readonly #headers: Record<string, string>

  constructor(url: string, key: string | undefined) {
    const { origin, pathname } = new URL(url)
    this.#base = pathname.replace(/\/$/, '')
    this.#headers = { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) }
    this.#pool = new Pool(origin, {
      connections: CONNECTIONS, keepAliveTimeout: IDLE_MS, keepAliveMaxTimeout: IDLE_MS, connectTimeout: LONGEST_MS,
      headersTimeout: LONGEST_MS, bodyTimeout: LONGEST_MS,
    })
  }

  /** Open a connection, so that the first page need not wait for one. */
  warm(): void {
    this.#pool.request({ method: 'GET', path: `${this.#base}/livez` }).then(({ body }) => body.dump(), () => {}).catch(() => {})
  }

  /** Send events of one request; the answer is that of the last. */
  async events(events: readonly Wire[], query: string, headers: Record<string, string>): Promise<Answer> {
    const body = JSON.stringify(events.length === 1 ? events[0] : events)
    const answer = (await this.post(`/v1/events${query}`, body, headers)) as Answer & { results?: Answer[] }
    return answer.results ? answer.results.at(-1)! : answer
  }

  /** What the service answers. Throws a Refusal. */
  async post(path: string, body: string, headers: Record<string, string> = {}): Promise<unknown> {
    let status: number
    let told: string | string[] | undefined
    let content: unknown
    try {
      const answer = await this.#pool.request({
        method: 'POST', path: this.#base + path, headers: { ...this.#headers, ...headers }, body,
      })
      status = answer.statusCode
      told = answer.headers['retry-after']
      const text = await answer.body.text()
      content = status === 200 ? JSON.parse(text) : problem(text)
    } catch (error) {
      throw new Refusal(0, `the service cannot be reached (${(error as { code?: string }).code ?? 'no answer'})`)
    }
    if (status === 200) return content
    const { detail, errors } = content as { detail?: string; errors?: [] }
    throw new Refusal(status, detail ?? `status ${status}`, Math.min(Number(told) * 1000 || 0, LONGEST_PAUSE_MS), errors)
  }

  /** Close the connections when what is under way is answered, or at once. */
  async close(now: boolean): Promise<void> {
    await (now ? this.#pool.destroy() : this.#pool.close())
  }
}

// what stands in between may answer in its own words
const problem = (text: string): unknown => {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {}
  }
}
