/** The browser client in the pages, and events of the shop's server beside it. */

import type { Request } from 'express'
import type { Options } from './options.js'
import { held } from './visitor.js'

/**
 * Options with which the server speaks in the name of the visitor that the browser client's cookie names, and with that
 * visitor's consent. The browser sends the page views; without its cookie (no consent to link) the server sends nothing.
 */
export function besideBrowser(cookie = 'lotse'): Pick<Options, 'consent' | 'visitor' | 'cookie' | 'event'> {
  return {
    cookie: false,
    consent: (request: Request) => held(request, cookie)?.purposes ?? null,
    visitor: (request: Request) => held(request, cookie)?.id,
    event: () => null,
  }
}
