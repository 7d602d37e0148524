/** What the npm package offers. */

export { init, type Lotse, type Options } from './client.js'
export { Session, type Answer, type Crossing, type SessionEvent, type Told } from './session.js'
export type { Level } from './state.js'
export type { Details, EventName, Fields, Purpose } from './vocabulary.js'
