// Whether scores hold: observed against score, of the test and of live sessions, and lift by session age.

import { across, inOrder, whiskers } from "./models_parts.js";

const TEST = "var(--series-1)";
const LIVE = "var(--series-2)";

export function calibration(one, shared) {
  const { t, element, panel, missing, chart, select, context, number } = shared;
  const curves = one.test?.reliability ?? [];
  const live = (one.realised?.by_score ?? []).filter((bin) => !bin.hidden);
  if (!curves.length && !live.length) return missing("calibration", one.test ? "calibration.old" : "models.nothing");
  const ages = curves.map((curve) => curve.age);
  let age = ["all", "events", ages[0]].find((name) => ages.includes(name));
  const bins = () => (curves.find((curve) => curve.age === age)?.bins ?? []).filter((bin) => !bin.hidden);
  const drawn = chart([], {}, "");
  const tables = element("div", {});

  function draw() {
    const tested = bins();
    const most = Math.max(1e-9, ...tested.map((bin) => Math.max(bin.score, bin.observed)), ...live.map((bin) => Math.max(bin.mean_score, bin.mean_answer))) * 1.05;
    const traces = [
      { x: [0, most], y: [0, most], mode: "lines", name: t("calibration.perfect"), line: { color: "var(--quiet)", dash: "dot" }, hoverinfo: "skip" },
      { x: tested.map((bin) => bin.score), y: tested.map((bin) => bin.observed), mode: "lines+markers", name: t("calibration.test"),
        line: { color: TEST }, error_y: whiskers(tested, (bin) => bin.observed, (bin) => bin.low, (bin) => bin.high, TEST) },
    ];
    if (live.length) {
      traces.push({ x: live.map((bin) => bin.mean_score), y: live.map((bin) => bin.mean_answer), mode: "markers", name: t("calibration.live"),
        marker: { color: LIVE, size: 9, symbol: "diamond" },
        error_y: whiskers(live, (bin) => bin.mean_answer, (bin) => bin.low, (bin) => bin.high, LIVE) });
    }
    const layout = { height: 360, margin: { l: 56, r: 12, t: 12, b: 44 }, xaxis: { title: { text: t("calibration.score") }, range: [0, most] },
      yaxis: { title: { text: t("calibration.happened") }, rangemode: "tozero" }, legend: { orientation: "h", y: -0.25 } };
    drawn.update(traces, layout, t("calibration.description", { test: tested.length, live: live.length }));
    const at = (label, of, digits = 4) => ({ label, align: "right", value: (bin) => number(of(bin), digits), raw: of, sort: of });
    tables.replaceChildren(shared.numbers([
      { ...at(t("calibration.score"), (bin) => bin.score), header: true }, at(t("calibration.happened"), (bin) => bin.observed),
      at(t("models.low"), (bin) => bin.low), at(t("models.high"), (bin) => bin.high), at(t("models.rows"), (bin) => bin.rows, 0), at(t("models.visitors"), (bin) => bin.visitors, 0),
    ], tested, t("calibration.table.test", { age: shared.age(age ?? "all") })));
    if (live.length) tables.append(shared.numbers(groupColumns(shared), one.realised.by_score.filter((bin) => !bin.hidden), t("calibration.table.live")));
    const byAge = (one.realised?.by_age ?? []).filter((bin) => !bin.hidden);
    if (byAge.length) tables.append(shared.numbers(groupColumns(shared), byAge, t("calibration.table.ages")));
  }

  const choice = ages.length > 1 ? select(t("calibration.age"), ages.map((name) => [name, shared.age(name)]), age, (value) => { age = value; draw(); }) : null;
  const hidden = (one.realised?.by_score ?? []).length - live.length;
  const about = one.realised ? t("calibration.live.about", {
    from: context.time(one.realised.from_ms), to: context.time(one.realised.to_ms), sessions: number(one.realised.sessions) }) : t("calibration.no_live");
  draw();
  return panel("calibration", choice ? element("div", { class: "controls" }, choice) : null,
    one.test && one.test.reliability === null ? element("p", { class: "note" }, t("calibration.old")) : null,
    element("div", { class: "models-pair" }, element("div", {}, live.length ? element("h4", {}, t("calibration.scores")) : null, drawn.node), byAgeChart(one, shared)),
    element("p", { class: "note" }, about), hidden ? element("p", { class: "note" }, t("models.hidden", { k: shared.found.least_visitors })) : null, tables);
}

function groupColumns({ t, number, group }) {
  const at = (label, of, digits = 4) => ({ label, align: "right", value: (one) => number(of(one), digits), raw: of, sort: of });
  return [
    { label: t("calibration.group"), value: (one) => group(one.name), header: true },
    at(t("calibration.promised"), (one) => one.mean_score), at(t("calibration.happened"), (one) => one.mean_answer),
    at(t("models.low"), (one) => one.low), at(t("models.high"), (one) => one.high), at(t("models.rows"), (one) => one.rows, 0),
    at(t("models.visitors"), (one) => one.visitors, 0),
  ];
}

function byAgeChart(one, { t, element, chart, group }) {
  const lines = (one.realised?.by_age ?? []).filter((line) => !line.hidden);
  if (!lines.length) return null;
  const names = lines.map((line) => group(line.name));
  const traces = [
    { x: names, y: lines.map((line) => line.mean_score), mode: "lines+markers", name: t("calibration.promised"), line: { color: TEST, dash: "dot" } },
    { x: names, y: lines.map((line) => line.mean_answer), mode: "markers", name: t("calibration.happened"), marker: { color: LIVE, size: 9, symbol: "diamond" },
      error_y: whiskers(lines, (line) => line.mean_answer, (line) => line.low, (line) => line.high, LIVE) },
  ];
  const layout = { height: 360, yaxis: { rangemode: "tozero" }, xaxis: { type: "category", tickangle: -30 }, margin: { l: 56, r: 12, t: 12, b: 80 },
    legend: { orientation: "h", y: 1.12 } };
  return element("div", {}, element("h4", {}, t("calibration.ages")), chart(traces, layout, t("calibration.ages.description", { n: lines.length })).node);
}

export function lift(one, shared) {
  const { t, panel, missing, chart, element, select, metric, age, number } = shared;
  const tested = (one.test?.ages ?? []).filter((line) => !line.hidden);
  const live = (one.realised?.ages ?? []).filter((line) => !line.hidden);
  if (!tested.length && !live.length) return missing("lift", "models.nothing");
  const names = inOrder(new Set([...tested, ...live].map((line) => line.age).filter((name) => !name.includes("="))));
  const metrics = Object.keys((tested[0] ?? live[0]).metrics).filter((name) => name !== "ece_noise");
  let chosen = metrics.includes("lift_10") ? "lift_10" : metrics[0];
  const drawn = chart([], {}, "");
  const tables = element("div", {});

  const trace = (lines, name, colour, symbol) => {
    const shown = lines.filter((line) => names.includes(line.age) && line.metrics[chosen] && line.metrics[chosen].value !== null);
    const of = (line) => line.metrics[chosen];
    return { x: shown.map((line) => age(line.age)), y: shown.map((line) => of(line).value), mode: "markers", name, marker: { color: colour, size: 8, symbol },
      error_y: whiskers(shown, (line) => of(line).value, (line) => of(line).low, (line) => of(line).high, colour) };
  };
  const chance = () => trace(tested.map((line) => ({ ...line, metrics: { [chosen]: line.metrics.ece_noise } })), t("metric.ece_noise"), "var(--quiet)", "line-ew-open");

  function draw() {
    const traces = [trace(tested, t("calibration.test"), TEST, "circle"), ...(live.length ? [trace(live, t("calibration.live"), LIVE, "diamond")] : [])];
    if (chosen === "ece") traces.push(chance());
    const layout = { height: 360, xaxis: { type: "category", tickangle: -40, categoryorder: "array", categoryarray: names.map(age) },
      yaxis: { title: { text: metric(chosen) }, rangemode: chosen.startsWith("lift") || chosen === "ece" ? "tozero" : "normal" },
      margin: { l: 56, r: 12, t: 12, b: 110 }, legend: { orientation: "h", y: 1.12 }, shapes: chosen.startsWith("lift") ? [across(1)] : [] };
    drawn.update(traces, layout, t("lift.description", { metric: metric(chosen), n: names.length }));
    const columns = (of) => [
      { label: t("lift.age"), value: (line) => age(line.age), header: true, sort: (line) => age(line.age) },
      { label: metric(chosen), align: "right", value: (line) => number(of(line)?.value, 4), raw: (line) => of(line)?.value, sort: (line) => of(line)?.value },
      { label: t("models.low"), align: "right", value: (line) => number(of(line)?.low, 4), raw: (line) => of(line)?.low },
      { label: t("models.high"), align: "right", value: (line) => number(of(line)?.high, 4), raw: (line) => of(line)?.high },
      ...["rows", "sessions", "visitors"].map((name) => ({ label: t(`models.${name}`), align: "right", value: (line) => number(line[name]), raw: (line) => line[name] })),
    ];
    const of = (line) => line.metrics[chosen];
    tables.replaceChildren(shared.numbers(columns(of), tested, t("lift.table.test", { metric: metric(chosen) })));
    if (live.length) tables.append(shared.numbers(columns(of), live, t("lift.table.live", { metric: metric(chosen) })));
  }

  const choice = select(t("lift.metric"), metrics.map((name) => [name, metric(name)]), chosen, (value) => { chosen = value; draw(); });
  draw();
  return panel("lift", element("div", { class: "controls" }, choice), drawn.node, tables);
}
