// What came of it so far: lifts with intervals that hold at every look, and guardrails.

import { badge, figure, heading, pValue, signed, toneOfVerdict } from "./experiments_parts.js";

const COLOURS = { better: "var(--good)", worse: "var(--bad)", invalid: "var(--quiet)", open: "var(--series-1)" };
const ROW_PX = 44;

export function resultsNode(desk, one) {
  const { element, t } = desk.context;
  const panel = element("div", { class: "panel", id: "experiments-results" }, heading(desk, t("results"), { level: 4 }));
  if (!one.results?.length) {
    panel.append(element("p", { class: "note" }, t("noResults")));
    return panel;
  }
  const control = one.definition.arms[0];
  panel.append(element("p", { class: "note" }, t("resultsNote", { control })));
  if (one.status === "stopped") panel.append(element("p", { class: "note" }, t("resultsStopped")));
  panel.append(element("div", { class: "experiments-plots" }, one.definition.goals.map((goal) => plotNode(desk, one, goal))));
  panel.append(tableNode(desk, one));
  return panel;
}

function tableNode(desk, one) {
  const { t, table, number, percent } = desk.context;
  const kinds = new Map(one.definition.goals.map((goal) => [goal.name, goal]));
  const mean = (result, name) => {
    const raw = result[name];
    const text = kinds.get(result.goal)?.kind === "binary" ? percent(raw, 2) : number(raw, 2);
    return figure(desk, raw, text);
  };
  return table([
    { label: t("goal"), header: true, value: ({ goal }) => (kinds.get(goal)?.primary ? `${goal} (${t("primary")})` : goal) },
    { label: t("arm"), value: ({ arm }) => arm },
    { label: t("units"), align: "right", value: ({ units }) => (units === null ? t("few") : figure(desk, units, number(units))) },
    { label: t("mean"), align: "right", value: (result) => mean(result, "mean") },
    { label: t("controlMean"), align: "right", value: (result) => mean(result, "control_mean") },
    { label: t("lift"), align: "right", value: ({ lift }) => figure(desk, lift, signed(desk, lift)) },
    { label: t("interval", { level: percent(1 - one.definition.alpha, 0) }), value: (result) => intervalNode(desk, result) },
    { label: t("p"), align: "right", value: ({ adjusted_p: p }) => figure(desk, p, pValue(desk, p)) },
    { label: t("verdict"), value: ({ verdict }) => badge(desk, t(`verdict.${verdict}`), toneOfVerdict(verdict)) },
  ], one.results, t("results"));
}

function intervalNode(desk, { low, high, verdict }) {
  if (verdict === "few") return "–";
  if (low === null || high === null) return desk.context.t("notKnown");
  return [figure(desk, low, signed(desk, low)), ` ${desk.context.t("until")} `, figure(desk, high, signed(desk, high))];
}

function intervalText(desk, { low, high }) {
  const { t } = desk.context;
  return low === null || high === null ? t("notKnown") : t("to", { low: signed(desk, low), high: signed(desk, high) });
}

/** Arms beneath each other, each with its lift and interval; a dashed line where a guardrail is. */
function plotNode(desk, one, goal) {
  const { element, t } = desk.context;
  const told = one.results.filter((result) => result.goal === goal.name && result.lift !== null);
  if (!told.length) return null;
  const control = one.definition.arms[0];
  const traces = told.map((result) => ({
    type: "scatter", mode: "markers", x: [result.lift], y: [result.arm], showlegend: false,
    marker: { size: 10, color: COLOURS[result.verdict] },
    error_x: result.low === null || result.high === null ? undefined : {
      type: "data", symmetric: false, array: [result.high - result.lift], arrayminus: [result.lift - result.low],
      color: COLOURS[result.verdict], thickness: 2.5, width: 6,
    },
    hovertemplate: `${result.arm}: %{x:+.1%}<extra></extra>`,
  }));
  const rail = one.definition.guardrails.find((each) => each.goal === goal.name);
  const line = { type: "line", yref: "paper", y0: 0, y1: 1 };
  const shapes = [{ ...line, x0: 0, x1: 0, line: { color: "var(--quiet)", width: 1 } }];
  if (rail) {
    const at = goal.better === "higher" ? rail.worst : -rail.worst;
    shapes.push({ ...line, x0: at, x1: at, line: { color: "var(--bad)", width: 1.5, dash: "dash" } });
  }
  const node = element("div", {});
  const said = told.map((result) => t("liftSaid", {
    arm: result.arm, lift: signed(desk, result.lift), interval: intervalText(desk, result), verdict: t(`verdict.${result.verdict}`),
  }));
  const title = t("liftsOf", { goal: goal.name, control });
  desk.chart(node, traces, {
    height: 70 + ROW_PX * told.length, margin: { l: 20, r: 16, t: 8, b: 34 }, shapes,
    xaxis: { tickformat: "+.0%", zeroline: false, nticks: 6, tickangle: 0, fixedrange: true },
    yaxis: { type: "category", range: [told.length - 0.5, -0.5], fixedrange: true },
  }, `${title}. ${said.join(". ")}`);
  return element("figure", { class: "experiments-plot" }, element("figcaption", {}, title), node);
}

export function guardrailsNode(desk, one) {
  const { element, t, table } = desk.context;
  const panel = element("div", { class: "panel", id: "experiments-guardrails" }, heading(desk, t("guardrails"), { level: 4 }));
  if (!one.definition.guardrails.length) {
    panel.append(element("p", { class: "note" }, t("noGuardrails")));
    return panel;
  }
  const watched = one.guardrails ?? one.definition.guardrails.flatMap((rail) =>
    one.definition.arms.slice(1).map((arm) => ({ ...rail, arm, state: "watch", lift: null, low: null, high: null })));
  panel.append(element("p", { class: "note" }, t("railsNote")), table([
    { label: t("goal"), header: true, value: ({ goal }) => goal },
    { label: t("arm"), value: ({ arm }) => arm },
    { label: t("worst"), align: "right", value: ({ worst }) => figure(desk, worst, signed(desk, worst)) },
    { label: t("change"), align: "right", value: ({ lift }) => figure(desk, lift, signed(desk, lift)) },
    { label: t("above"), align: "right", value: ({ low }) => figure(desk, low, signed(desk, low)) },
    { label: t("below"), align: "right", value: ({ high }) => figure(desk, high, signed(desk, high)) },
    { label: t("state"), value: ({ state }) => element("span", { class: { ok: "good", broken: "bad", watch: "warn" }[state] }, t(`rail.${state}`)) },
  ], watched, t("guardrails")));
  return panel;
}

