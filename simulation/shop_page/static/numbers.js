/** A number between 0 and 1. */
export const clamp = (value) => Math.min(Math.max(value, 0), 1)
