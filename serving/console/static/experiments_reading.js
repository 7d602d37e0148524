// What the form of an experiment says, as a configuration.

import { ruleOf, typed } from "./experiments_data.js";

/** The configuration with the form's experiment in it; null where something cannot be read, which is then marked. */
export function contentOf(form, status) {
  form.clear();
  const { t } = form.desk.context;
  for (const name of ["key", "feature", "default"]) form.needed(form.single[name]);
  if (!form.edited && form.key in (form.desk.configuration.experiments ?? {})) form.mark(form.single.key, t("takenKey"));
  const content = placed(form, definitionOf(form, status));
  return form.marked ? null : content;
}

/** The definition; what the form does not know of it stays. */
function definitionOf(form, status) {
  const { single } = form;
  const next = { ...(form.edited ? form.desk.configuration.experiments[form.edited] ?? form.old : {}) };
  const put = (name, value, usual) => {
    if (value === undefined || value === "" || (value === usual && !(name in next))) delete next[name];
    else next[name] = value;
  };
  put("name", single.name.value);
  put("hypothesis", single.hypothesis.value);
  put("status", status);
  put("unit", single.unit.value, "session");
  next.arms = form.armLines.fields.map(({ name }) => form.needed(name));
  put("shares", sharesOf(form));
  put("holdback", form.part(single.holdback), 0);
  put("minimum_share", form.part(single.minimum_share));
  next.goals = form.goalLines.fields.map(({ name, kind, column, better, primary }) => ({
    name: form.needed(name), kind: kind.value, ...(column.value ? { column: column.value } : {}),
    ...(better.value === "lower" ? { better: "lower" } : {}), ...(primary.value ? { primary: true } : {}),
  }));
  const rails = form.railLines.fields.map(({ goal, worst }) => {
    form.needed(worst);
    const share = form.part(worst);
    return { goal: form.needed(goal), ...(share === undefined ? {} : { worst: -share }) };
  });
  put("guardrails", rails.length ? rails : undefined);
  const allocation = allocationOf(form);
  put("allocation", Object.keys(allocation).length === 1 && allocation.name === "fixed" && !next.allocation ? undefined : allocation);
  put("phase", single.phase ? form.decimal(single.phase) : next.phase, 1);
  put("planned_units", form.decimal(single.planned_units));
  put("alpha", form.part(single.alpha));
  return next;
}

/** Shares of the arms; undefined, which is equal ones, where none is typed. */
function sharesOf(form) {
  const fields = form.armLines.fields.map(({ share }) => share);
  if (fields.every((field) => !field.value)) return undefined;
  return fields.map((field) => {
    form.needed(field);
    return form.part(field);
  });
}

/** The allocation with its options. */
function allocationOf(form) {
  const name = form.single.allocation.value;
  const next = { name, ...optionsOf(form) };
  if (name !== "contextual") return next;
  next.score = form.single.score.value;
  const parts = form.single.edges.value.split(/[\s;]+/).filter(Boolean);
  const edges = parts.map((text) => Number(text.replace(/,$/, "").replace(",", ".")));
  if (edges.some(Number.isNaN)) form.mark(form.single.edges, form.desk.context.t("notNumber"));
  if (edges.length) next.edges = edges;
  return next;
}

function optionsOf(form) {
  const found = typed(form.single.options.value || "{}");
  if (typeof found === "object" && found !== null && !Array.isArray(found)) return found;
  form.mark(form.single.options, form.desk.context.t("notJson"));
  return {};
}

/** The whole with the definition, and the rule that names it where it was, or as the last of its flag. */
function placed(form, definition) {
  const { single, key } = form;
  const next = structuredClone(form.desk.configuration);
  const found = ruleOf(next, form.edited || key);
  const feature = single.feature.value;
  next.experiments = { ...next.experiments, [key]: definition };
  next.features ??= {};
  if (found && found.feature !== feature) next.features[found.feature].rules.splice(found.place, 1);
  const rule = { ...found?.rule, variations: form.armLines.fields.map(({ value }) => typed(form.needed(value))) };
  // a rule without a key is named as its flag
  if (rule.key || feature !== key || !found) rule.key = key;
  fill(rule, "condition", conditionOf(form));
  fill(rule, "namespace", spanOf(form));
  const holder = { rules: [], ...next.features[feature], defaultValue: typed(single.default.value) };
  form.rulePlace = found?.feature === feature ? found.place : holder.rules.length;
  holder.rules[form.rulePlace] = rule;
  next.features[feature] = holder;
  return next;
}

function fill(rule, name, value) {
  if (value && Object.keys(value).length) rule[name] = value;
  else delete rule[name];
}

function conditionOf(form) {
  if (!form.single.asJson.value) return form.asked();
  try {
    return JSON.parse(form.single.json.value || "{}");
  } catch {
    form.mark(form.single.json, form.desk.context.t("notJson"));
    return null;
  }
}

function spanOf(form) {
  const { namespace, from, to } = form.single;
  return namespace.value ? [namespace.value, form.decimal(from) ?? 0, form.decimal(to) ?? 1] : null;
}
