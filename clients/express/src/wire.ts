/** What goes to the service and what it answers, as docs/api.md has it. */

/** What may be done with an event. */
export type Purpose = 'measure' | 'link' | 'personalise'

/** In this order they stand in the cookie. */
export const PURPOSES: readonly Purpose[] = ['measure', 'link', 'personalise']

/** What an event may tell beside its name. Money is in `currency`, without it in the shop's own. */
export interface Details {
  page?: string
  item?: string
  category?: string
  campaign?: string
  price?: number
  quantity?: number
  value?: number
  currency?: string
  channel?: string
  interactive?: boolean
  declared?: number[]
}

/** What happened; `page_view` if no name is given. A name is one of GA4's or one that configs/shop.toml maps. */
export interface PageEvent extends Details {
  name?: string
}

/** An event as it is sent. `time` is this machine's: its clock is set by NTP, so the service need not correct it. */
export interface Wire extends Details {
  visitor: string
  name: string
  id: string
  time: number
  consent: readonly Purpose[]
  referrer?: string
  device?: string
}

/** The value of a feature of configs/experiments.json. */
export interface Flag {
  value: unknown
  /** The arm, of an experiment. */
  variant?: string
  reason?: string
}

/** What the service answers to an event. */
export interface Answer {
  session?: string
  status: string
  events: number
  scores?: Record<string, number>
  models?: Record<string, string>
  reasons?: Record<string, string>
  reason?: string
  flags?: Record<string, Flag>
}
