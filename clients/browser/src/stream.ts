/** Server-sent events of the session, while thresholds are asked for and the page is seen. */

import type { Crossing, Session, Told } from './session.js'

/**
 * A function to call whenever the session's token or the page's visibility may have changed.
 *
 * A hidden page holds no connection: browsers allow six to a host over HTTP/1.1, for all tabs together. When it is seen
 * again, `refresh` tells which scores have fallen meanwhile, and what still stands above its threshold is not told twice.
 */
export function stream(
  address: (path: string) => string, thresholds: readonly string[], session: Session, refresh: () => Promise<void>,
): () => void {
  const above = new Map<string, Crossing>()
  let source: EventSource | undefined
  let token: string

  const crossed = (crossing: Crossing) => {
    const name = crossing.head + crossing.threshold
    const up = crossing.direction === 'up'
    if (up === above.has(name)) return
    if (up) above.set(name, crossing)
    else above.delete(name)
    session.tell('threshold', crossing)
  }
  const fallen = () =>
    above.forEach((crossing) => {
      const { scores } = session
      const score = scores[crossing.head]!
      if (score < crossing.threshold) crossed({ ...crossing, direction: 'down', score, scores })
    })

  return () => {
    const seen = session.token && thresholds[0] && document.visibilityState !== 'hidden'
    if (source && (!seen || token !== session.token || source.readyState === 2)) source = source.close() as undefined
    if (!seen || source) return
    if (token === session.token) refresh().then(fallen)
    else above.clear()
    token = session.token
    const wanted = thresholds.map((each) => 'threshold=' + each).join('&')
    const opened = (source = new EventSource(address(`sessions/${token}/events?${wanted}`)))
    const hear = <Detail>(type: string, told: (detail: Detail) => void) =>
      opened.addEventListener(type, (event) => told(JSON.parse((event as MessageEvent<string>).data) as Detail))
    hear('score', crossed)
    hear<Told['idle']>('idle', (idle) => session.tell('idle', idle))
    // not opened again before an answer names the next session
    hear('closed', () => opened.close())
  }
}
