// What acting from a threshold on would reach and change: plain arithmetic over the document's tables.

const SURE = 1.96;

/** One line of a table of thresholds; shares with their 95 % intervals. */
export function line(table, at) {
  const last = table.threshold.length - 1;
  const share = (value, error) => ({ value, low: Math.max(value - SURE * error, 0), high: value + SURE * error });
  const sessions = table.sessions[at];
  const precision = share(table.answers[at] / sessions, table.precision_error[at]);
  const usual = table.answers[last] / table.sessions[last];
  return {
    threshold: table.threshold[at], sessions, answers: table.answers[at],
    reach: share(sessions / table.base, table.reach_error[at]),
    precision,
    caught: share(table.answers[at] / table.base, table.caught_error[at]),
    recall: table.answers[last] ? table.answers[at] / table.answers[last] : null,
    lift: usual ? precision.value / usual : null,
  };
}

/**
 * Sessions a day whose outcome changes: per day * reach * precision * effect, with its interval.
 * effect: relative change of the outcome, {value, low, high}; low and high may be null: then the effect is taken as sure.
 * Errors of what is caught and of the effect are independent; their product's follows by the delta method.
 */
export function expected(found, perDay, effect) {
  if (perDay === null || effect.value === null) return null;
  const caught = found.caught.value;
  const error = (found.caught.high - caught) / SURE;
  const known = effect.low !== null && effect.high !== null;
  const spread = known ? (effect.high - effect.low) / (2 * SURE) : 0;
  const value = perDay * caught * effect.value;
  const deviation = perDay * Math.hypot(effect.value * error, caught * spread);
  return { value, low: value - SURE * deviation, high: value + SURE * deviation, acted: perDay * found.reach.value, right: perDay * caught };
}

/** Results of experiments with an effect, as GET /v1/experiments/state tells them. */
export function effects(state) {
  const found = [];
  for (const [key, one] of Object.entries(state?.experiments ?? {})) {
    for (const result of one.results ?? []) {
      if (typeof result.lift === "number") found.push({ experiment: key, ...result });
    }
  }
  return found;
}
