/** The middleware: an event for each page, its answer in the request; never an error, never a wait beyond the time. */

import type { NextFunction, Request, RequestHandler, Response } from 'express'
import { Circuit, failureOf } from './circuit.js'
import { settled, type Options, type Settings } from './options.js'
import { Outbox } from './outbox.js'
import { device, entry, isNobody, isPage, objections, path } from './requests.js'
import { Service } from './service.js'
import { SessionOfRequest, type RequestLotse } from './session.js'
import { identified } from './visitor.js'
import type { Answer, PageEvent, Wire } from './wire.js'

declare global {
  // eslint-disable-next-line @typescript-eslint/no-namespace
  namespace Express {
    interface Request {
      /** The session of this request's visitor, as Lotse sees it. */
      lotse: RequestLotse
    }
  }
}

const FLUSH_MS = 3000
const QUIET_MS = 60_000

/** Requests by what came of their event, and events that went another way than a page's request. */
export interface Counts {
  readonly requests: Readonly<Record<string, number>>
  readonly waiting: number
  readonly sent: number
  readonly refused: number
  readonly dropped: number
}

export interface Lotse extends RequestHandler {
  /** For a route: one event more, for whose answer the page waits with what is left of its time. */
  page(event: PageEvent | readonly PageEvent[] | ((request: Request) => PageEvent | readonly PageEvent[] | null)): RequestHandler
  readonly counts: Counts
  /** Send what waits, for so long at most, and close the connections; resolves to how many events are left. */
  close(ms?: number): Promise<number>
  /** For `openfeature.ts`. */
  readonly internals: { settings: Settings; circuit: Circuit }
}

/** Set up the middleware. Throws a TypeError if an option is wrong; afterwards nothing of it is ever thrown. */
export function lotse(options: Options): Lotse {
  const settings = settled(options)
  const { timeoutMs, failures, circuitMs, queueLimit, flags } = settings
  const query = flags === 'none' ? '' : `?flags=${typeof flags === 'string' ? flags : flags.map(encodeURIComponent).join(',')}`
  const service = new Service(settings.url, settings.key)
  service.warm()
  const circuit = new Circuit(timeoutMs, failures, circuitMs)
  const said = new Map<string, number>()
  const warn = (kind: string, message: string) => {
    const now = Date.now()
    if ((said.get(kind) ?? 0) > now - QUIET_MS) return
    said.set(kind, now)
    try {
      settings.warn(`lotse: ${message}`)
    } catch {
      // a log that fails is no reason to fail a page
    }
  }
  const outbox = new Outbox(service, queueLimit, warn)
  const requests: Record<string, number> = {}

  /** Send the events of a page and wait for the answer as long as may be. */
  const asked = async (of: SessionOfRequest, events: Wire[], headers: Record<string, string>): Promise<void> => {
    if (outbox.mustWait(events[0]!.visitor)) {
      of.reason = 'unavailable'
      outbox.add(events)
      return
    }
    let sending: Promise<Answer> | undefined
    const began = performance.now()
    try {
      // a route's own event waits for what is left of the request's time
      const left = Math.max(timeoutMs - of.waitedMs, 0)
      of.heard(await outbox.sending(events, () => circuit.ask(() => (sending = service.events(events, query, headers)), left)))
      outbox.wake()
    } catch (error) {
      of.reason = failureOf(error)
      if (of.reason !== 'unavailable' || !circuit.open) warn(of.reason, `no scores: ${(error as Error).message}`)
      if (sending) outbox.doubt(events)
      else outbox.add(events)
      // what was answered too late need not be sent again
      sending?.then(() => outbox.delete(events), () => {})
    } finally {
      of.waitedMs += performance.now() - began
    }
  }

  /** Who asks, and whether a page is asked for. */
  const begun = async (request: Request, response: Response): Promise<SessionOfRequest> => {
    const { skip } = settings
    if (typeof skip === 'function' ? skip(request) : skip.test(path(request))) return new SessionOfRequest('skipped')
    if (isNobody(request)) return new SessionOfRequest('skipped')
    const visitor = await identified(request, response, settings, (id) => outbox.withdraw(id))
    if (!visitor) return new SessionOfRequest('no_consent')
    const origin = { page: path(request), device: device(request) }
    return new SessionOfRequest('no_event', visitor, origin, (events) => outbox.add(events), warn)
  }

  const handler =
    (told: (request: Request) => PageEvent | readonly PageEvent[] | null, only: (request: Request) => boolean) =>
    async (request: Request, response: Response, next: NextFunction): Promise<void> => {
      try {
        const of = (request.lotse ??= await begun(request, response)) as SessionOfRequest
        const found = of.visitor && only(request) ? told(request) : null
        const several = found === null ? [] : (Array.isArray(found) ? found : [found]) as readonly PageEvent[]
        const first = of.reason === 'no_event' ? entry(request) : {}
        const events = several.map((event, place) => of.event(event, place ? {} : first)!)
        if (events.length) await asked(of, events, objections(request))
        requests[of.reason] = (requests[of.reason] ?? 0) + 1
      } catch (error) {
        // the shop's own functions: what they would have said is not known, so nothing is sent
        request.lotse ??= new SessionOfRequest('no_consent')
        warn('option', `a function of the options failed: ${(error as Error).message}`)
      }
      next()
    }

  let closing: Promise<number> | undefined
  const close = (ms = FLUSH_MS) =>
    (closing ??= (async () => {
      process.removeListener('SIGTERM', ended)
      const left = await outbox.close(ms)
      if (left) warn('left', `${left} events are lost: the service did not take them before the end`)
      circuit.close()
      await service.close(left > 0)
      return left
    })())
  const ended = async () => {
    await close()
    // a listener of ours keeps the process from ending by itself; another one's owner ends it
    if (process.listenerCount('SIGTERM') === 0) process.kill(process.pid, 'SIGTERM')
  }
  if (settings.signals) process.on('SIGTERM', ended)

  return Object.defineProperties(handler(settings.event, isPage), {
    page: {
      value: (event: PageEvent | readonly PageEvent[] | ((request: Request) => PageEvent | readonly PageEvent[] | null)) =>
        handler(typeof event === 'function' ? event : () => event, () => true),
    },
    counts: { get: () => ({ requests: { ...requests }, waiting: outbox.length, ...outbox.counted }) },
    close: { value: close },
    internals: { value: { settings, circuit } },
  }) as unknown as Lotse
}
