// Whether sessions still are what the model was tested on, now and over time.

import { across, moment, timeAxis, whiskers } from "./models_parts.js";

const SHOWN = 12;

export function drift(one, { t, panel, missing, chart, numbers, element, context, number, percent }) {
  const found = one.drift;
  if (!found) return missing("drift", "drift.none");
  const worst = found.features.filter((feature) => feature.counts).slice(0, SHOWN);
  const lines = [{ ...found.score, name: t("drift.scores"), counts: true }, ...worst].reverse();
  const traces = [
    { type: "bar", orientation: "h", name: t("drift.psi"), x: lines.map((line) => line.psi), y: lines.map((line) => line.name),
      marker: { color: lines.map((line) => (line.drifted ? "var(--bad)" : "var(--series-1)")) } },
    { mode: "markers", name: t("drift.alarm"), x: lines.map((line) => line.psi_alarm), y: lines.map((line) => line.name),
      marker: { symbol: "line-ns-open", size: 16, color: "var(--warn)", line: { width: 2.5 } } },
  ];
  const layout = { height: 120 + 24 * lines.length, xaxis: { title: { text: t("drift.psi") }, rangemode: "tozero" }, yaxis: { type: "category", automargin: true },
    margin: { l: 8, r: 12, t: 30, b: 40 }, legend: { orientation: "h", y: 1.08 } };
  const at = (label, of, digits = 4) => ({ label, align: "right", value: (line) => number(of(line), digits), raw: of, sort: of });
  const columns = [
    { label: t("drift.feature"), value: (line) => line.name, header: true, sort: (line) => line.name },
    at(t("drift.psi"), (line) => line.psi), at(t("drift.alarm"), (line) => line.psi_alarm), at(t("drift.noise"), (line) => line.psi_noise),
    at(t("drift.ks"), (line) => line.ks), at(t("drift.ks_alarm"), (line) => line.ks_alarm),
    ...["missing_before", "missing_later"].map((name) => ({ label: t(`drift.${name}`), align: "right", value: (line) => percent(line[name], 1), raw: (line) => line[name] })),
    { label: t("drift.drifted"), value: (line) => (line.counts ? t(line.drifted ? "models.yes" : "models.no") : t("drift.ignored")) },
  ];
  const all = [{ ...found.score, name: t("drift.scores"), counts: true }, ...found.features];
  return panel("drift", element("p", { class: "note" }, t("drift.window", {
    from: context.time(found.from_ms), to: context.time(found.to_ms), sessions: number(found.sessions), n: found.version })),
  chart(traces, layout, t("drift.description", { n: lines.length, drifted: lines.filter((line) => line.drifted).length })).node,
  numbers(columns, all, t("drift.table")));
}

export function overTime(one, shared) {
  const { t, panel, missing, chart, numbers, element, select, context, number } = shared;
  const { looks, features } = one.over_time;
  if (!looks.length) return missing("over_time", "drift.none");
  const times = looks.map((look) => moment(look.at_ms));
  const last = looks.at(-1);
  const line = (name, of, colour, more = {}) => ({ x: times, y: looks.map(of), name, mode: "lines+markers", connectgaps: true, line: { color: colour, ...more }, marker: { size: 6 } });
  const alarm = (of) => line(t("drift.alarm"), of, "var(--warn)", { dash: "dash", width: 1.5 });
  const what = {
    ratio: () => ({
      traces: [{ ...line(t("over_time.ratio"), (look) => look.ratio, "var(--series-2)"),
        error_y: whiskers(looks, (look) => look.ratio, (look) => minus(look.ratio, look.ratio_error), (look) => minus(look.ratio, look.ratio_error, -1), "var(--series-2)") },
      alarm((look) => (look.ratio_alarm === null ? null : 1 + look.ratio_alarm)), { ...alarm((look) => (look.ratio_alarm === null ? null : 1 - look.ratio_alarm)), showlegend: false }],
      shapes: [across(1)],
    }),
    calibration: () => ({ traces: [line(t("over_time.calibration"), (look) => look.calibration, "var(--series-2)"), line(t("metric.ece_noise"), (look) => look.calibration_noise, "var(--quiet)", { dash: "dot" }), alarm((look) => look.calibration_alarm)] }),
    psi: () => ({ traces: [line(t("drift.scores"), (look) => look.score_psi, "var(--series-2)", { width: 3 }), alarm((look) => look.score_psi_alarm),
      ...features.map((name, place) => line(name, (look) => look.psi[name], `var(--series-${[1, 3, 4, 5, 6, 1][place]})`))] }),
    lift_10: () => ({ traces: [line(shared.metric("lift_10"), (look) => look.lift_10, "var(--series-2)")], shapes: [across(1)] }),
    drifted_features: () => ({ traces: [line(t("tile.drift"), (look) => look.drifted_features, "var(--series-2)")] }),
  };
  let chosen = last.ratio === null ? "psi" : "ratio";
  const drawn = chart([], {}, "");

  function draw() {
    const { traces, shapes = [] } = what[chosen]();
    const layout = { height: 320, xaxis: timeAxis(), yaxis: { rangemode: chosen === "ratio" ? "normal" : "tozero" }, shapes,
      legend: { orientation: "h", y: 1.15 }, margin: { l: 56, r: 16, t: 30, b: 50 } };
    drawn.update(traces, layout, t("over_time.description", { what: t(`over_time.${chosen}`), n: looks.length }));
  }

  const at = (label, of, digits = 4) => ({ label, align: "right", value: (look) => number(of(look), digits), raw: of, sort: of });
  const columns = [
    { label: t("over_time.at"), value: (look) => context.time(look.at_ms), raw: (look) => look.at_ms, sort: (look) => look.at_ms, header: true },
    { label: t("models.version_short"), align: "right", value: (look) => look.version, raw: (look) => look.version },
    at(t("models.sessions"), (look) => look.sessions, 0), at(t("over_time.ratio"), (look) => look.ratio), at(t("over_time.calibration"), (look) => look.calibration),
    at(t("over_time.lift_10"), (look) => look.lift_10, 2), at(t("over_time.score_psi"), (look) => look.score_psi), at(t("tile.drift"), (look) => look.drifted_features, 0),
    { label: t("over_time.state"), value: (look) => t(look.drifted ? "state.alarm" : "state.well") },
  ];
  const choice = select(t("over_time.what"), Object.keys(what).map((name) => [name, t(`over_time.${name}`)]), chosen, (value) => { chosen = value; draw(); });
  draw();
  return panel("over_time", element("div", { class: "controls" }, choice), drawn.node, numbers(columns, [...looks].reverse(), t("over_time.table")));
}

function minus(value, error, sign = 1) {
  return value === null || error === null ? null : value - sign * 1.96 * error;
}
