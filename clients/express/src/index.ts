/** What the npm package offers. */

export { besideBrowser } from './beside.js'
export { lotse, type Counts, type Lotse } from './middleware.js'
export type { Options } from './options.js'
export type { Reason, RequestLotse } from './session.js'
export type { Details, Flag, PageEvent, Purpose } from './wire.js'
