/**
 * The session's flags over OFREP. The service says when one of them may be another (its event stream), and then they are
 * asked for: a page that waits asks nothing.
 */

const FLAGS = '/ofrep/v1/evaluate/flags'

export function flagsOf(collector, session) {
  const listeners = new Set()
  let token = ''
  let source

  async function ask() {
    const mine = session.token
    // as text, which browsers send to another origin without asking first
    const body = JSON.stringify({ context: { targetingKey: mine } })
    const response = await fetch(collector + FLAGS, { method: 'POST', body, credentials: 'omit' }).catch(() => undefined)
    if (!response?.ok || mine !== session.token) return
    const { flags, eventStreams } = await response.json()
    listeners.forEach((listener) => listener(flags))
    if (!source && document.visibilityState !== 'hidden') listen(eventStreams?.[0]?.endpoint.requestUri)
  }

  function listen(address) {
    if (!address) return // a session that is over
    source = new EventSource(collector + address)
    source.addEventListener('message', ask)
  }

  function leave() {
    source?.close()
    source = undefined
  }

  session.addEventListener('scores', () => {
    if (source?.readyState === EventSource.CLOSED) leave()
    if (token === session.token && source) return
    if (token !== session.token) leave()
    token = session.token
    ask()
  })
  // a hidden page holds no connection, and asks when it is seen again
  document.addEventListener('visibilitychange', () => (document.visibilityState === 'hidden' ? leave() : token && ask()))

  return {
    /** Told of all flags, whenever they may have changed. */
    heard: (listener) => listeners.add(listener),
  }
}
