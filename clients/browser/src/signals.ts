/** Consent that somebody else asked for: IAB TCF (`__tcfapi`) and Google Consent Mode (`dataLayer`). */

import type { Lotse } from './client.js'
import type { Level } from './state.js'
import type { Purpose } from './vocabulary.js'

type Grant = (level: Level, purposes: Purpose[]) => void

interface TcData {
  eventStatus?: string
  gdprApplies?: boolean
  purpose?: { consents?: Record<string, boolean> }
}

interface Page {
  __tcfapi?: (command: string, version: number, told: (data: TcData | null, success: boolean) => void) => void
  dataLayer?: unknown[]
}

const granted = (measure: boolean, link: boolean, personalise: boolean): [Level, Purpose[]] => [
  link ? 'full' : 'none',
  (['measure', 'link', 'personalise'] as const).filter((_, place) => [measure, link, personalise][place]),
]

/** What TCF's purposes grant, as serving/consent.py reads a TCF string: 7, 8 measure; 1 with 7 to 10 links; 5, 6 personalise. */
export function ofPurposes(consents: Record<string, boolean>): [Level, Purpose[]] {
  const any = (...purposes: number[]) => purposes.some((purpose) => consents[purpose])
  return granted(any(7, 8), any(1) && any(7, 8, 9, 10), any(5, 6))
}

/** What Google's consent types grant. */
export function ofTypes(types: Record<string, string>): [Level, Purpose[]] {
  const analytics = types.analytics_storage === 'granted'
  return granted(analytics, analytics, types.personalization_storage === 'granted')
}

/**
 * Hand on what is signalled, now and later; returns whether anybody signals.
 *
 * Only a choice counts: not TCF before the visitor has chosen, not the `default` of Consent Mode, which every page says
 * anew and which would take back what was granted on the page before.
 */
export function signals(lotse: Pick<Lotse, 'consent'>): boolean {
  const page = window as Page
  const grant: Grant = (level, purposes) => lotse.consent(level, purposes)
  let signalled = !!page.__tcfapi
  page.__tcfapi?.('addEventListener', 2, (data, success) => {
    if (success && data && data.gdprApplies !== false && /^(tcloaded|useractioncomplete)$/.test(data.eventStatus || '')) {
      grant(...ofPurposes(data.purpose?.consents || {}))
    }
  })
  const types: Record<string, string> = {}
  const read = (command: unknown) => {
    // gtag pushes its `arguments`
    const [what, how, said] = Array.from((command as ArrayLike<unknown>) || []) as [unknown, unknown, Record<string, string>]
    if (what !== 'consent') return
    signalled = true
    // an update names what changes
    Object.assign(types, said)
    if (how === 'update') grant(...ofTypes(types))
  }
  const layer = (page.dataLayer ||= [])
  layer.slice().forEach(read)
  const push = layer.push
  layer.push = (...commands: unknown[]) => {
    const length = push.apply(layer, commands)
    commands.forEach(read)
    return length
  }
  return signalled
}
