/** How long a page is seen, and how far down. */

const ENGAGED_MS = 10_000
const LEAST_MS = 1_000
const BOTTOM = 0.9

export interface Engagement {
  /** The page is seen (again). */
  seen(): void
  /** The page is hidden or left: tell what is to tell of it. */
  unseen(): void
  /** Another page begins. */
  next(): void
}

/**
 * Tells `scroll` once a page, at 90 % as Google Analytics does, and `user_engagement` with the share of the page that was
 * seen: after ten seconds in view, which is what tells a visit from a bounce, and when the page is hidden or left.
 */
export function engagement(tell: (name: 'scroll' | 'user_engagement', share: number) => void): Engagement {
  let since = 0
  let depth = 0
  let scrolled = false
  let timer: ReturnType<typeof setTimeout> | undefined
  let waiting: unknown

  const measure = () => {
    const { scrollHeight } = document.documentElement
    depth = Math.max(depth, Math.min((scrollY + innerHeight) / scrollHeight || 0, 1))
    return Math.round(depth * 100) / 100
  }
  const report = () => tell('user_engagement', measure())

  addEventListener(
    'scroll',
    () => {
      // the layout is asked for four times a second at most
      waiting ||= setTimeout(() => {
        waiting = 0
        const share = measure()
        if (share < BOTTOM || scrolled) return
        scrolled = true
        tell('scroll', share)
      }, 250)
    },
    { passive: true },
  )

  const engaged = {
    seen() {
      since = Date.now()
      clearTimeout(timer)
      timer = setTimeout(report, ENGAGED_MS)
    },
    unseen() {
      clearTimeout(timer)
      if (since && Date.now() - since >= LEAST_MS) report()
      since = 0
    },
    next() {
      depth = 0
      scrolled = false
      if (document.visibilityState !== 'hidden') engaged.seen()
    },
  }
  return engaged
}
