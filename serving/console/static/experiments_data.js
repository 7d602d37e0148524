// What the service says of experiments, made into what the view shows, and back into what is pushed: pure functions.

/** Where an experiment stands: a stopped one with a winner is another thing for those who look at it. */
export function standing(one) {
  return one.status === "stopped" && one.definition.winner ? "won" : one.status;
}

/** The rule that says whom an experiment is for: of which feature, and its place there. */
export function ruleOf(configuration, key) {
  for (const [feature, one] of Object.entries(configuration.features ?? {})) {
    const place = (one.rules ?? []).findIndex((rule) => rule.variations && (rule.key || feature) === key);
    if (place >= 0) return { feature, place, rule: one.rules[place] };
  }
  return null;
}

/** Arms that are given no longer, each with why: "killed", by a person, or "guardrail". */
export function closedArms(one) {
  const closed = new Map((one.stopped ?? []).map((each) => [each.arm, "guardrail"]));
  for (const arm of one.killed) if (!closed.has(arm)) closed.set(arm, "killed");
  return closed;
}

/** The sample ratio in a word: what is not known yet, and whether anything can be believed. */
export function ratioState(one) {
  const ratio = one.sample_ratio;
  if (!ratio) return "nothing";
  if (ratio.alarm) return "alarm";
  return ratio.p === null ? "few" : "ok";
}

/** The worst state of all guardrails; nothing where there are none. */
export function railState(one) {
  const states = (one.guardrails ?? one.definition.guardrails.map(() => ({ state: "watch" }))).map((rail) => rail.state);
  return ["broken", "watch", "ok"].find((state) => states.includes(state)) ?? "none";
}

/** Units that are known, and whether some are not told. */
export function unitsOf(one) {
  const counts = Object.values(one.units ?? {});
  return { total: counts.reduce((sum, count) => sum + (count ?? 0), 0), few: counts.includes(null), any: counts.length > 0 };
}

/** The results that decide: of primary goals. */
export function deciding(one) {
  const primary = new Set(one.definition.goals.filter((goal) => goal.primary).map((goal) => goal.name));
  return (one.results ?? []).filter((result) => primary.has(result.goal));
}

/**
 * A JSON merge patch (RFC 7396) that makes one value into another; undefined where they are alike.
 * What is gone becomes null, and lists are replaced as a whole.
 */
export function patchBetween(old, next) {
  if (!isObject(old) || !isObject(next)) return alike(old, next) ? undefined : next;
  const patch = {};
  for (const key of Object.keys(old)) if (!(key in next)) patch[key] = null;
  for (const [key, value] of Object.entries(next)) {
    if (!(key in old)) patch[key] = value;
    else {
      const inner = patchBetween(old[key], value);
      if (inner !== undefined) patch[key] = inner;
    }
  }
  return Object.keys(patch).length ? patch : undefined;
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Whether two values are the same JSON, in whatever order keys are written. */
export function alike(one, other) {
  if (Array.isArray(one) && Array.isArray(other))
    return one.length === other.length && one.every((value, place) => alike(value, other[place]));
  if (!isObject(one) || !isObject(other)) return one === other;
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => key in other && alike(one[key], other[key]));
}

/** The problems that a refusal names, each with its place, such as $.experiments.banner.goals[0].kind; some have none. */
export function problemsIn(detail) {
  return detail
    .replace(/^the configuration(, drafts started)?: /, "")
    .split(/; (?=\$\.)/)
    .map((part) => {
      const found = /^(\$\.\S*?): (.*)$/s.exec(part);
      return found ? { place: found[1], text: found[2] } : { place: "", text: part };
    });
}

/** A value as somebody types it: JSON where it is JSON, else a text. */
export function typed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A value as it is shown in a field that `typed` reads. */
export function shown(value) {
  if (value === undefined) return "";
  return typeof value === "string" && typed(value) === value ? value : JSON.stringify(value);
}

export const OPERATORS = { $gt: ">", $gte: "≥", $lt: "<", $lte: "≤", $eq: "=", $ne: "≠" };

/** A condition as lines of name, operator and value; null where it says more than such lines can. */
export function linesOf(condition) {
  const lines = [];
  for (const [name, asked] of Object.entries(condition ?? {})) {
    if (name.startsWith("$")) return null;
    if (!isObject(asked)) {
      if (Array.isArray(asked) || asked === null) return null;
      lines.push({ name, operator: "$eq", value: asked });
      continue;
    }
    for (const [operator, value] of Object.entries(asked)) {
      if (!(operator in OPERATORS) || isObject(value) || Array.isArray(value)) return null;
      lines.push({ name, operator, value });
    }
  }
  return lines;
}

/** Such lines as a condition; null where one asks twice for the same, of which only the last would hold. */
export function conditionOf(lines) {
  const condition = {};
  for (const { name, operator, value } of lines) {
    condition[name] ??= {};
    if (operator in condition[name]) return null;
    condition[name][operator] = value;
  }
  return condition;
}

/** A condition in words: bounce > 0.7 and events < 3; as JSON where lines cannot say it. */
export function spoken(condition, and) {
  const lines = linesOf(condition);
  if (lines === null) return JSON.stringify(condition);
  return lines.map(({ name, operator, value }) => `${name} ${OPERATORS[operator]} ${shown(value)}`).join(` ${and} `);
}
