/** How the middleware is set up. Wrong options are refused at the start, by name. */

import type { Request } from 'express'
import type { PageEvent, Purpose } from './wire.js'

type Maybe<Value> = Value | Promise<Value>

export interface Options {
  /** Where the service is, such as `https://lotse.internal:3000`. */
  url: string
  /** A secret key (`lotse keys create --kind secret`); none for a service without keys on this machine. */
  key?: string
  /** How long a page waits for its scores, at most. 30. */
  timeoutMs?: number
  /** Flags to be answered with the scores; `all`. */
  flags?: 'all' | 'none' | readonly string[]
  /** Name of the cookie that knows visitors again who consented to `link`; `false`: there is none. `lotse`. */
  cookie?: string | false
  /** Whether the cookie goes over TLS only; `auto`: where the request came so (Express' `trust proxy`). */
  secure?: boolean | 'auto'
  /**
   * What the visitor has consented to, for each request. `null`: nothing may be sent. Without this option it is nothing,
   * `[]`: a page counts for itself, and there is no cookie.
   */
  consent?: (request: Request) => Maybe<Iterable<Purpose> | null>
  /** The visitor's id, where the shop has one: a random one that lies in its own server session. */
  visitor?: (request: Request) => Maybe<string | null | undefined>
  /** What a page request tells; `null`: nothing. `page_view`. */
  event?: (request: Request) => PageEvent | readonly PageEvent[] | null
  /** Requests that do not concern Lotse; files that pages load, by their names. */
  skip?: RegExp | ((request: Request) => boolean)
  /** After so many failures in a row no page waits for `circuitMs`. 5, 5000. */
  failures?: number
  circuitMs?: number
  /** Events that wait for the service at most; the oldest are dropped first. 10000. */
  queueLimit?: number
  /** Whether SIGTERM sends what waits before the process ends. `true`; else call `close()`. */
  signals?: boolean
  /** Told what is wrong, each thing once a minute; `console.warn`. No id, address or key is in it. */
  warn?: (message: string) => void
}

export type Settings = Required<Omit<Options, 'key' | 'visitor'>> & Pick<Options, 'key' | 'visitor'>

const ASSETS = /\.(?:avif|css|eot|gif|ico|jpe?g|js|json|map|mjs|mp4|otf|pdf|png|svg|txt|ttf|webm|webmanifest|webp|woff2?|xml)$/i

const DEFAULTS = {
  timeoutMs: 30,
  flags: 'all',
  cookie: 'lotse',
  secure: 'auto',
  consent: () => [],
  event: () => ({ name: 'page_view' }),
  skip: ASSETS,
  failures: 5,
  circuitMs: 5000,
  queueLimit: 10_000,
  signals: true,
  warn: (message: string) => console.warn(message),
} satisfies Partial<Options>

const KNOWN = ['url', 'key', 'visitor', ...Object.keys(DEFAULTS)]
const NAMES = /^[\w!#$%&'*+.^`|~-]+$/

/** The options with what was left out. Throws a TypeError that names what is wrong. */
export function settled(options: Options): Settings {
  for (const name of Object.keys(options)) {
    if (!KNOWN.includes(name)) wrong(name, 'an unknown option', `one of ${KNOWN.join(', ')}`)
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const all = { ...DEFAULTS, ...(given as unknown as Options) } as Settings
  if (!/^https?:$/.test(protocol(all.url))) wrong('url', all.url, 'an address such as https://lotse.internal:3000')
  if (all.key !== undefined && !/^lotse_sec_/.test(all.key)) {
    wrong('key', 'another text', 'a secret key, lotse_sec_...: lotse keys create --kind secret')
  }
  for (const name of ['timeoutMs', 'failures', 'circuitMs', 'queueLimit'] as const) {
    if (!Number.isFinite(all[name]) || all[name] <= 0) wrong(name, all[name], 'a number above 0')
  }
  const { flags } = all
  const listed = Array.isArray(flags) && flags.every((flag) => typeof flag === 'string' && flag && !/[,&#\s]/.test(flag))
  if (flags !== 'all' && flags !== 'none' && !listed) wrong('flags', flags, `'all', 'none' or keys of features`)
  if (all.cookie !== false && !NAMES.test(String(all.cookie))) wrong('cookie', all.cookie, 'a name, or false')
  if (!(all.skip instanceof RegExp) && typeof all.skip !== 'function') wrong('skip', all.skip, 'a RegExp or a function')
  for (const name of ['consent', 'visitor', 'event', 'warn'] as const) {
    if (all[name] !== undefined && typeof all[name] !== 'function') wrong(name, all[name], 'a function')
  }
  return all
}

const protocol = (url: unknown) => {
  try {
    return new URL(String(url)).protocol
  } catch {
    return ''
  }
}

function wrong(name: string, found: unknown, expected: string): never {
  throw new TypeError(`lotse: option ${name}: found ${JSON.stringify(found) ?? String(found)}, expected ${expected}`)
}
