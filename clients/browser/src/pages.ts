/** Which page is open, also where a script changes it without loading another. */

const TAGS = /[?&](?:(?:utm|mtm|pk)_(?:source|medium|campaign)=[^&]*|(?:[gw]braid|(?:g|d|y|tt)clid|msclkid)=[^&])/g

/** The path, with `hash` that behind the `#`, too; never a query. */
export const path = (hash?: boolean): string =>
  (location.pathname + (hash ? location.hash.replace(/^#!?\/?/, location.pathname.endsWith('/') ? '' : '/') : '')).split('?')[0]!

/**
 * From what the service tells channel and campaign of a visit: the page's address with its campaign tags, of click ids only
 * that there is one; and of the referrer, scheme and host.
 */
export function entry(page: string, query: string, referrer: string): { page: string; referrer: string } {
  const tags = (query.match(TAGS) || []).join('').slice(1)
  return { page: tags ? page + '?' + tags : page, referrer: /^[^/]*\/\/[^/]*|$/.exec(referrer)![0] }
}

/** Call `changed` with the path whenever it is another one. */
export function changes(hash: boolean | undefined, changed: (path: string) => void): void {
  let open = path(hash)
  const look = () => {
    const now = path(hash)
    if (now !== open) changed((open = now))
  }
  for (const name of ['pushState', 'replaceState'] as const) {
    const change = history[name]
    history[name] = function (...state) {
      change.apply(this, state)
      look()
    }
  }
  addEventListener('popstate', look)
  if (hash) addEventListener('hashchange', look)
}
