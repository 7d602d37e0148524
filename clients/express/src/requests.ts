/**
 * What a request is, by its headers, and what of them goes on: a path, campaign tags, the host of the referrer, the kind
 * of device. Never an address of a network, a user agent, or another part of a query.
 */

import type { Request } from 'express'
import { isbot } from 'isbot'

/** A browser that loads a page before anybody wants to see it, and programs. */
export function isNobody(request: Request): boolean {
  const purpose = [request.get('sec-purpose'), request.get('purpose'), request.get('x-moz')].join(' ')
  if (/prefetch|prerender/.test(purpose)) return true
  const agent = request.get('user-agent')
  return !agent || isbot(agent)
}

/** Whether a page is asked for, and not what is on it. Links that a script follows by fetch say so by `Accept`. */
export function isPage(request: Request): boolean {
  if (request.method !== 'GET') return false
  const destination = request.get('sec-fetch-dest') ?? 'document'
  return /^(?:document|empty)$/.test(destination) && !!request.get('accept')?.includes('text/html')
}

/** Whether the browser says that its user objects: Global Privacy Control, Do Not Track. */
export const objects = (request: Request): boolean => request.get('sec-gpc') === '1' || request.get('dnt') === '1'

/** The headers by which it says so: the service judges by them, too. */
export function objections(request: Request): Record<string, string> {
  const found: Record<string, string> = {}
  for (const name of ['sec-gpc', 'dnt']) {
    const value = request.get(name)
    if (value === '0' || value === '1') found[name] = value
  }
  return found
}

// as in clients/browser/src/pages.ts; of click ids only that there is one
const TAGS = /[?&](?:(?:utm|mtm|pk)_(?:source|medium|campaign)=[^&#]*|(?:[gw]braid|(?:g|d|y|tt)clid|msclkid)=[^&#])/g
const LONGEST = 1500

/** The path of a request, as the browser has it. */
export const path = (request: Request): string => (request.originalUrl.split('?')[0] || '/').slice(0, LONGEST)

/** From what the service tells channel and campaign: the page with its campaign tags; of the referrer scheme and host. */
export function entry(request: Request): { page: string; referrer: string } {
  const query = request.originalUrl.slice(request.originalUrl.indexOf('?') >>> 0)
  const tags = (query.match(TAGS) ?? []).join('').slice(1, LONGEST)
  const host = request.get('host')
  const origin = host && /^[\w.:[\]-]{1,255}$/.test(host) ? `${request.protocol}://${host}` : ''
  const referrer = /^[^/?#]*\/\/[^/?#@]{1,255}(?=[/?#]|$)/.exec(request.get('referer') ?? '')?.[0] ?? ''
  return { page: origin + path(request) + (tags && `?${tags}`), referrer }
}

/** The kind of device that a user agent names, as clients/browser/src/device.ts tells it; hints before the agent. */
export function device(request: Request): string {
  if (request.get('sec-ch-ua-mobile') === '?1') return 'mobile'
  const agent = request.get('user-agent') ?? ''
  return /smart-?tv|apple ?tv|hbbtv|(android|google) ?tv|roku|bravia|web0s|\baft[a-z]|crkey|playstation|xbox/i.test(agent)
    ? 'tv'
    : /tablet(?! pc)|ipad|kindle|\bsilk\/|android(?!.*mobile)/i.test(agent)
      ? 'tablet'
      : /mobile|android/i.test(agent)
        ? 'mobile'
        : 'desktop'
}
