// Champion against challenger, what the gate said, and what became of every version.

import { moment, timeAxis, whiskers } from "./models_parts.js";

const LOOKS = {
  registered: ["circle-open", "var(--series-1)"],
  promoted: ["triangle-up", "var(--good)"],
  refused: ["x", "var(--bad)"],
  replaced: ["square-open", "var(--quiet)"],
  rolled_back: ["triangle-down", "var(--warn)"],
  restored: ["star", "var(--series-4)"],
};
const GATED = ["log_loss", "ece", "auc", "pr_auc", "brier", "d2", "mae", "spearman", "ratio", "rmse"];

export function comparison(one, shared) {
  const { t, panel, missing, chart, numbers, element, select, context, number, metric, age, figure } = shared;
  const found = one.comparison;
  const challenger = one.versions.find((version) => version.version === one.challenger);
  if (!found) {
    const refused = challenger?.refused_because;
    const text = one.challenger ? "comparison.not_yet" : "comparison.none";
    return panel("comparison", element("p", { class: "quiet" }, t(text)), refused ? element("p", { lang: "en" }, refused) : null);
  }
  const lines = found.ages.filter((line) => !line.hidden);
  const overall = lines.find((line) => line.age === "all") ?? lines[0];
  const metrics = GATED.filter((name) => overall && name in overall.metrics);
  let chosen = metrics[0];
  const drawn = chart([], {}, "");

  function draw() {
    const shown = lines.filter((line) => line.metrics[chosen]?.difference !== null).reverse();
    const of = (line) => line.metrics[chosen];
    const whole = whiskers(shown, (line) => of(line).difference, (line) => of(line).low, (line) => of(line).high, "var(--series-1)");
    const traces = [{ x: shown.map((line) => of(line).difference), y: shown.map((line) => age(line.age)), mode: "markers", error_x: whole,
      marker: { color: "var(--series-1)", size: 8 }, name: metric(chosen) }];
    const layout = { height: 110 + 22 * shown.length, xaxis: { title: { text: t("comparison.axis", { metric: metric(chosen) }), font: { size: 12 } }, nticks: 5 }, yaxis: { type: "category", automargin: true },
      margin: { l: 8, r: 16, t: 12, b: 44 }, showlegend: false,
      shapes: [{ type: "line", yref: "paper", x0: 0, x1: 0, y0: 0, y1: 1, line: { color: "var(--quiet)", dash: "dash", width: 1.5 } }] };
    drawn.update(traces, layout, t("comparison.description", { metric: metric(chosen), n: shown.length }));
  }

  const cell = (label, of, digits = 4) => ({ label, align: "right", value: (row) => number(of(row), digits), raw: of, sort: of });
  const columnsOf = (first) => [first, cell(t("tile.champion"), (row) => row.champion), cell(t("tile.challenger"), (row) => row.candidate),
    cell(t("comparison.difference"), (row) => row.difference), cell(t("models.low"), (row) => row.low), cell(t("models.high"), (row) => row.high)];
  const allMetrics = metrics.map((name) => ({ name, ...overall.metrics[name] }));
  const everywhere = lines.flatMap((line) => metrics.map((name) => ({ age: line.age, name, rows: line.rows, ...line.metrics[name] })));
  const verdict = found.promoted === null ? "comparison.no_gate" : found.promoted ? "comparison.promoted" : "comparison.refused";
  const choice = select(t("lift.metric"), metrics.map((name) => [name, metric(name)]), chosen, (value) => { chosen = value; draw(); });
  if (chosen) draw();
  return panel("comparison",
    element("p", {}, t("comparison.of", { champion: found.champion, candidate: found.candidate, time: context.time(found.at_ms),
      from: context.day(found.since_ms), to: context.day(found.until_ms), rows: number(overall?.rows), sessions: number(overall?.sessions) })),
    element("p", { class: found.promoted ? "good" : found.promoted === null ? "quiet" : "warn" }, figure(String(found.promoted), t(verdict), { "data-name": "gate" })),
    found.reasons.length ? element("ul", { class: "models-reasons", lang: "en" }, found.reasons.map((reason) => element("li", {}, reason))) : null,
    overall ? context.table(columnsOf({ label: t("comparison.metric"), value: (row) => metric(row.name), header: true }), allMetrics, t("comparison.table")) : element("p", {}, t("models.hidden", { k: shared.found.least_visitors })),
    chosen ? [element("div", { class: "controls" }, choice), drawn.node,
      numbers([{ label: t("lift.age"), value: (row) => age(row.age), header: true }, ...columnsOf({ label: t("comparison.metric"), value: (row) => metric(row.name) }), cell(t("models.rows"), (row) => row.rows, 0)],
        everywhere, t("comparison.table.ages"))] : null);
}

export function versions(one, { t, panel, chart, numbers, context, element, number, metric, verb }) {
  const kinds = Object.keys(LOOKS).filter((what) => one.life.some((event) => event.what === what));
  const named = (version) => t("models.version", { n: version });
  const traces = kinds.map((what) => {
    const events = one.life.filter((event) => event.what === what);
    const [symbol, color] = LOOKS[what];
    return { x: events.map((event) => moment(event.at_ms)), y: events.map((event) => named(event.version)), mode: "markers", name: t(`life.${what}`),
      marker: { symbol, color, size: 12, line: { width: 2, color } } };
  });
  const order = [...one.versions].reverse().map((version) => named(version.version));
  const layout = { height: 130 + 26 * order.length, xaxis: timeAxis(), yaxis: { type: "category", categoryorder: "array", categoryarray: order, automargin: true },
    margin: { l: 8, r: 20, t: 12, b: 50 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" } };
  const metrics = [...new Set(one.versions.flatMap((version) => Object.keys(version.test)))];
  const shown = ["log_loss", "auc", "ece", "lift_10", "d2", "mae", "ratio"].filter((name) => metrics.includes(name));
  const columns = [
    { label: t("models.version_short"), value: (row) => [row.version, row.aliases.map((alias) => [" ", element("span", { class: "badge" }, alias)])], raw: (row) => row.version, header: true },
    { label: t("life.registered"), value: (row) => context.time(row.registered_ms), raw: (row) => row.registered_ms, sort: (row) => row.registered_ms },
    { label: t("versions.by"), value: (row) => verb(row.registered_by) }, { label: t("versions.source"), value: (row) => row.source ?? "–" },
    { label: t("versions.learned_until"), value: (row) => context.day(row.learned_until_ms), raw: (row) => row.learned_until_ms },
    ...shown.map((name) => ({ label: metric(name), align: "right", value: (row) => number(row.test[name], 4), raw: (row) => row.test[name], sort: (row) => row.test[name] })),
    { label: t("versions.gate"), value: (row) => gateOf(row, t) },
  ];
  const events = [...one.life].reverse();
  return panel("versions", chart(traces, layout, t("versions.description", { n: order.length, events: events.length })).node,
    context.table(columns, one.versions, t("versions.table")),
    numbers([
      { label: t("over_time.at"), value: (event) => context.time(event.at_ms), raw: (event) => event.at_ms, header: true },
      { label: t("versions.what"), value: (event) => t(`life.${event.what}`), raw: (event) => event.what },
      { label: t("models.version_short"), align: "right", value: (event) => event.version, raw: (event) => event.version },
      { label: t("versions.by"), value: (event) => (event.what === "replaced" ? "" : verb(event.by)) },
      { label: t("versions.other"), align: "right", value: (event) => event.other ?? "" },
    ], events, t("versions.life")));
}

function gateOf(version, t) {
  if (version.gate.gate === "passed") return t("versions.passed");
  if (version.refused_because) return t("life.refused");
  return version.gate.gate ? t("versions.not_compared") : "–";
}
