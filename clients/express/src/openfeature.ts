/**
 * OpenFeature's server SDK over the service: its OFREP provider, held to the same time and circuit as the pages, and an
 * evaluation context for each request.
 *
 * Needs `@openfeature/server-sdk` and `@openfeature/ofrep-provider`.
 */

import { OFREPProvider } from '@openfeature/ofrep-provider'
import { AsyncLocalStorageTransactionContextPropagator, OpenFeature, type EvaluationContext } from '@openfeature/server-sdk'
import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { Lotse } from './middleware.js'
import { Refusal } from './service.js'

/** An OFREP provider that asks the middleware's service. */
export function provider({ internals: { settings, circuit } }: Lotse): OFREPProvider {
  const { url, key } = settings
  // a provider that is not answered in time hands out the caller's default
  const asked: typeof fetch = (input, init) =>
    circuit.ask(async () => {
      const answer = await fetch(input, init)
      if (answer.status > 499) throw new Refusal(answer.status, `status ${answer.status}`)
      return answer
    })
  return new OFREPProvider({
    baseUrl: url.replace(/\/$/, ''),
    ...(key ? { headers: [['Authorization', `Bearer ${key}`]] } : {}),
    fetchImplementation: asked,
  })
}

/**
 * Behind `app.use(shop)`: sets the provider and has every evaluation of a request know its session.
 *
 * domain: OpenFeature's, if the shop has other providers; context: what conditions may ask for beside scores and features
 * (`attributes` of configs/experiments.json).
 */
export function openFeature(
  shop: Lotse,
  { domain, context = () => ({}) }: { domain?: string; context?: (request: Request) => EvaluationContext } = {},
): RequestHandler {
  OpenFeature.setTransactionContextPropagator(new AsyncLocalStorageTransactionContextPropagator())
  const asked = provider(shop)
  const set = domain ? OpenFeature.setProviderAndWait(domain, asked) : OpenFeature.setProviderAndWait(asked)
  set.catch((error: Error) => shop.internals.settings.warn(`lotse: OpenFeature's provider was not set: ${error.message}`))
  return (request: Request, _: Response, next: NextFunction) => {
    const { targetingKey } = request.lotse
    OpenFeature.setTransactionContext({ ...context(request), ...(targetingKey ? { targetingKey } : {}) }, () => next())
  }
}
