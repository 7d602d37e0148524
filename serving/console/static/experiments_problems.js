// What the service refuses, shown at the fields that it speaks of.

// Where a problem belongs that names the experiment only: by the first of these words that it says.
const MENTIONS = { minimum_share: "minimum_share", holdback: "holdback", guardrail: "guardrails", share: "shares", goal: "goals", arms: "arms" };

/** Show problems at their fields, the first of which gets the focus; returns those that belong to none. */
export function showProblems(form, problems) {
  const others = problems.filter((problem) => {
    const field = fieldOf(form, problem);
    field?.wrong(problem.text);
    return !field;
  });
  form.node.querySelector("[aria-invalid]")?.focus();
  return others;
}

function fieldOf(form, { place, text }) {
  const own = `$.experiments.${form.key}`;
  if (place === own) return ofWhole(form, text);
  if (place.startsWith(`${own}.`)) return ofDefinition(form, place.slice(own.length + 1));
  const feature = `$.features.${form.single.feature.value}`;
  if (place === `${feature}.defaultValue`) return form.single.default;
  if (place === feature) return form.single.feature;
  const rule = `${feature}.rules[${form.rulePlace}]`;
  return place.startsWith(rule) ? ofRule(form, place.slice(rule.length + 1), text) : null;
}

function ofWhole(form, text) {
  const option = /^allocation\.(\w+)/.exec(text);
  if (option) return option[1] === "name" ? form.single.allocation : form.single[option[1]] ?? form.single.options;
  const words = Object.keys(MENTIONS).filter((word) => text.includes(word)).sort((one, other) => text.indexOf(one) - text.indexOf(other));
  return words.length ? ofDefinition(form, MENTIONS[words[0]]) : form.single.key;
}

/** A field by its place in the definition, such as goals[0].column. */
function ofDefinition(form, path) {
  const [, name, number, part] = /^(\w+)(?:\[(\d+)\])?(?:\.(\w+))?/.exec(path) ?? [];
  const line = (lines) => lines.fields[Number(number ?? 0)] ?? lines.fields.at(-1);
  const of = {
    arms: () => line(form.armLines)?.name,
    shares: () => line(form.armLines)?.share,
    goals: () => line(form.goalLines)?.[part] ?? line(form.goalLines)?.name,
    guardrails: () => line(form.railLines)?.[part] ?? line(form.railLines)?.goal,
    allocation: () => form.single[part] ?? (part ? form.single.options : form.single.allocation),
  };
  return of[name] ? of[name]() : form.single[name];
}

/** A field by its place in the rule: of a condition the line that asks for what the problem names. */
function ofRule(form, part, text) {
  if (part.startsWith("variations")) return form.armLines.fields[0]?.value;
  if (part.startsWith("namespace")) return form.single.namespace;
  if (form.single.asJson.value) return form.single.json;
  const lines = form.conditionLines.fields;
  const named = lines.find(({ name }) => name.value && (text.includes(`'${name.value}'`) || part.endsWith(`.${name.value}`)));
  return (named ?? lines[0])?.name ?? form.single.asJson;
}
