/** The kind of device that a user agent string names, by the rules of features/agents.py as far as browsers need them. */
export const device = (agent: string): string =>
  /(?:^|[^u])bot(?![a-z])|crawl|spider|headless|lighthouse|preview|https?:/i.test(agent) ? 'bot'
    : /smart-?tv|apple ?tv|hbbtv|(android|google) ?tv|roku|bravia|web0s|\baft[a-z]|crkey|playstation|xbox/i.test(agent) ? 'tv'
      : /tablet(?! pc)|ipad|kindle|\bsilk\/|android(?!.*mobile)/i.test(agent) ? 'tablet'
        : /mobile|android/i.test(agent) ? 'mobile'
          : 'desktop'
