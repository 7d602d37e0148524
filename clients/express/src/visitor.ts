/**
 * Who a request is of. Without consent to link nothing lies on the device: the id is as old as the request. With it, the
 * id lies in a first-party cookie, for 390 days from the consent on, as the service keeps linked visitors.
 *
 * The cookie's text is the browser client's, an id and what it may be used for: `12-34-56-78.measure.link`. An id of
 * another form is not taken: whoever writes a cookie by hand must not become the visitor of an account.
 */

import { randomBytes } from 'node:crypto'
import { parse } from 'cookie'
import type { Request, Response } from 'express'
import type { Settings } from './options.js'
import { objects } from './requests.js'
import { PURPOSES, type Purpose } from './wire.js'

const SECONDS = 390 * 86_400
const HELD = /^(\d{1,10}(?:-\d{1,10}){3})((?:\.(?:measure|link|personalise)){0,3})$/
const MOST = 512

export interface Visitor {
  id: string
  purposes: readonly Purpose[]
}

/** What a cookie of ours, or the browser client's, says. */
export function held(request: Request, name: string): Visitor | undefined {
  const header = request.headers.cookie
  const found = header?.includes(name) ? HELD.exec(parse(header)[name] ?? '') : null
  return found ? { id: found[1]!, purposes: found[2]!.split('.').slice(1) as Purpose[] } : undefined
}

/** 128 random bits, in the browser client's form. */
export function random(): string {
  const bytes = randomBytes(16)
  return [0, 4, 8, 12].map((place) => bytes.readUInt32BE(place)).join('-')
}

/**
 * The visitor of a request, `null` if nothing may be sent; sets or deletes the cookie. `withdrawn` is told the id of one
 * whose visits are not to be linked any more.
 */
export async function identified(
  request: Request,
  response: Response,
  settings: Settings,
  withdrawn: (id: string) => void,
): Promise<Visitor | null> {
  const granted = await settings.consent(request)
  const own = await settings.visitor?.(request)
  const purposes = granted ? consented(request, granted) : []
  const before = settings.cookie === false ? undefined : held(request, settings.cookie)
  const lasting = settings.cookie !== false && !own && purposes.includes('link')
  if (settings.cookie !== false) {
    if (lasting) {
      const { id } = before ?? { id: random() }
      const text = [id, ...purposes].join('.')
      // once: a visit does not prolong what was consented to
      if (!before || text !== [id, ...before.purposes].join('.')) put(request, response, settings, text, SECONDS)
      return { id, purposes }
    }
    if (before) {
      put(request, response, settings, '', 0)
      if (!purposes.includes('link')) withdrawn(before.id)
    }
  }
  if (!granted) return null
  return { id: own ? String(own).slice(0, MOST) : random(), purposes }
}

function consented(request: Request, granted: Iterable<Purpose>): Purpose[] {
  const all = new Set<string>(granted)
  for (const name of all) {
    if (!(PURPOSES as readonly string[]).includes(name)) {
      throw new TypeError(`consent: found ${JSON.stringify(name)}, expected names out of ${PURPOSES.join(', ')}`)
    }
  }
  return PURPOSES.filter((one) => all.has(one) && (one === 'measure' || !objects(request)))
}

function put(request: Request, response: Response, { cookie, secure }: Settings, text: string, seconds: number): void {
  response.cookie(String(cookie), text, {
    maxAge: seconds * 1000,
    path: '/',
    httpOnly: true,
    sameSite: 'lax',
    secure: secure === 'auto' ? request.secure : secure,
  })
}
