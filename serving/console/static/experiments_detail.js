// One experiment: what it asks, how it is set up, whether it can be trusted, what came of it so far.

import { actionsNode } from "./experiments_actions.js";
import { overTimeNode } from "./experiments_allocation.js";
import { closedArms, ratioState, ruleOf, shown, spoken, standing, unitsOf } from "./experiments_data.js";
import { backNode, badge, factsNode, figure, heading, pValue } from "./experiments_parts.js";
import { guardrailsNode, resultsNode } from "./experiments_results.js";

export function detailNode(desk, key) {
  const { element, t, empty } = desk.context;
  const one = desk.state.experiments[key];
  if (!one) return element("div", {}, backNode(desk), empty(t("unknown"), t("unknownHint")));
  const found = ruleOf(desk.configuration, key);
  return element("div", {},
    backNode(desk),
    element("div", { class: "experiments-title" }, heading(desk, one.definition.name || key), badge(desk, t(standing(one)), toneOf(standing(one)))),
    element("p", { class: one.definition.hypothesis ? null : "note" }, one.definition.hypothesis || t("noHypothesis")),
    desk.readOnly ? element("p", { class: "note" }, t("readOnly")) : actionsNode(desk, key, one),
    ratioNode(desk, one),
    tilesNode(desk, key, one),
    element("div", { class: "columns" }, armsNode(desk, one, found), whomNode(desk, one, found)),
    goalsNode(desk, one),
    resultsNode(desk, one),
    guardrailsNode(desk, one),
    overTimeNode(desk, one));
}

function toneOf(which) {
  return { running: "good", won: "good", draft: "warn" }[which];
}

/** What everything else rests on: whether units came into the arms as they were sent there. */
function ratioNode(desk, one) {
  const { element, t } = desk.context;
  const state = ratioState(one);
  const p = one.sample_ratio?.p;
  return element("div", { class: `panel experiments-ratio ${state === "alarm" ? "failure" : ""}`, id: "experiments-ratio" },
    element("strong", {}, `${t("ratio")}: `),
    element("span", { class: { ok: "good", alarm: "bad" }[state] }, t(`ratio.${state}`)),
    p === null || p === undefined ? null : [" (", figure(desk, p, t("pAt", { p: pValue(desk, p) })), ")"]);
}

function tilesNode(desk, key, one) {
  const { element, t, number, time } = desk.context;
  const units = unitsOf(one);
  const tiles = [
    [t("units"), units.any ? figure(desk, units.total, number(units.total)) : "–", units.few ? t("few") : null],
    [t("planned"), figure(desk, one.definition.planned_units, number(one.definition.planned_units))],
    [t("phase"), figure(desk, one.phase, number(one.phase))],
    [t("began"), one.history ? figure(desk, one.history.began_ms, time(one.history.began_ms)) : "–"],
    [t("counted"), one.counted_ms ? figure(desk, one.counted_ms, time(one.counted_ms)) : t("neverCounted")],
    [t("key"), element("code", {}, key)],
  ];
  return element("dl", { class: "tiles experiments-tiles" }, tiles.map(([label, value, more]) =>
    element("div", { class: "tile" }, element("dt", {}, label), element("dd", {}, value, more ? element("span", {}, ` + ${more}`) : null))));
}

function armsNode(desk, one, found) {
  const { element, t, table, percent, number } = desk.context;
  const { definition } = one;
  const closed = closedArms(one);
  const now = one.table && one.table.edges.length === 0 ? shareNow(one, closed) : null;
  const rows = definition.arms.map((arm, place) => ({ arm, place }));
  const stateOf = ({ arm, place }) => {
    if (arm === definition.winner) return badge(desk, t("winner"), "good");
    if (closed.has(arm)) return badge(desk, t(closed.get(arm)), "bad");
    return place === 0 ? badge(desk, t("control")) : t("given");
  };
  const columns = [
    { label: t("arm"), header: true, value: ({ arm }) => arm },
    { label: t("shows"), value: ({ place }) => (found ? element("code", {}, shown(found.rule.variations[place])) : "–") },
    { label: t("share"), align: "right", value: ({ place }) => figure(desk, definition.shares[place], percent(definition.shares[place], 1)) },
    ...(one.status === "running" ? [{
      label: t("shareNow"), align: "right",
      value: ({ place }) => (now ? figure(desk, now[place], percent(now[place], 1)) : t("byScore")),
    }] : []),
    { label: t("units"), align: "right", value: ({ arm }) => {
      const count = one.units?.[arm];
      return count === null ? t("few") : figure(desk, count, number(count));
    } },
    { label: t("state"), value: stateOf },
  ];
  return element("div", { class: "panel", id: "experiments-arms" }, heading(desk, t("arms"), { level: 4 }),
    table(columns, rows, t("arms")), element("p", { class: "note" }, t("unitsHint")));
}

/** What units outside the holdback get now: a closed arm's share is the control's until the next table. */
function shareNow(one, closed) {
  const line = [...one.table.bins[0]];
  one.definition.arms.forEach((arm, place) => {
    if (place && closed.has(arm)) {
      line[0] += line[place];
      line[place] = 0;
    }
  });
  return line;
}

function whomNode(desk, one, found) {
  const { element, t, percent, number } = desk.context;
  const { definition } = one;
  const { name, ...options } = definition.allocation;
  const condition = found?.rule.condition;
  const span = found?.rule.namespace;
  return element("div", { class: "panel", id: "experiments-whom" }, heading(desk, t("whom"), { level: 4 }), factsNode(desk, [
    [t("feature"), found ? element("code", {}, found.feature) : t("noRule")],
    found && [t("condition"), condition && Object.keys(condition).length ? element("code", {}, spoken(condition, t("and"))) : t("everybody")],
    [t("unit"), t(definition.unit)],
    [t("namespace"), span ? t("namespacePart", { name: span[0], from: number(span[1], 2), to: number(span[2], 2) }) : t("noNamespace")],
    [t("holdback"), figure(desk, definition.holdback, percent(definition.holdback, 1))],
    [t("minimumShare"), figure(desk, definition.minimum_share, percent(definition.minimum_share, 1))],
    [t("allocation"), name],
    Object.keys(options).length ? [t("allocationOptions"), optionsText(options)] : null,
    [t("alpha"), figure(desk, definition.alpha, percent(definition.alpha, 1))],
  ]));
}

function optionsText(options) {
  return Object.entries(options).map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(", ") : shown(value)}`).join("; ");
}

function goalsNode(desk, one) {
  const { element, t, table } = desk.context;
  const columns = [
    { label: t("goal"), header: true, value: (goal) => goal.name },
    { label: t("kind"), value: (goal) => t(goal.kind) },
    { label: t("column"), value: (goal) => element("code", {}, goal.column) },
    { label: t("better"), value: (goal) => t(goal.better) },
    { label: t("primary"), value: (goal) => (goal.primary ? t("yes") : t("no")) },
  ];
  return element("div", { class: "panel", id: "experiments-goals" }, heading(desk, t("goals"), { level: 4 }), table(columns, one.definition.goals, t("goals")));
}
