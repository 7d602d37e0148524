// How the allocation went: shares of the arms over time, and when arms were closed and why.

import { figure, heading, numbersNode, signed } from "./experiments_parts.js";

/** A moment as Plotly takes it: without a zone, so that its axis shows the time of the one who looks. */
function local(ms) {
  const date = new Date(ms);
  return new Date(ms - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19).replace("T", " ");
}

export function overTimeNode(desk, one) {
  const { element, t, percent } = desk.context;
  const panel = element("div", { class: "panel", id: "experiments-allocation" }, heading(desk, t("overTime"), { level: 4 }));
  const history = one.history;
  if (!history?.points.length) {
    panel.append(element("p", { class: "note" }, t("noHistory")));
    return panel;
  }
  panel.append(element("p", { class: "note" }, t("overTimeNote", { holdback: percent(one.definition.holdback, 0) })));
  const bins = binsOf(desk, one);
  const asked = Number(desk.context.params.get("bin"));
  const bin = Number.isInteger(asked) && asked >= 0 && asked < bins.length ? asked : 0;
  if (bins.length > 1) {
    panel.append(element("p", { class: "controls" }, element("label", { for: "experiments-bin" }, t("bin")),
      element("select", { id: "experiments-bin", onchange: (event) => {
        desk.context.setParams({ bin: event.target.value });
        desk.draw();
      } }, bins.map((text, place) => element("option", { value: place, selected: place === bin }, text)))));
  }
  panel.append(areaNode(desk, one, bin), numbersNode(desk, "experiments-allocation-numbers", pointsTable(desk, one, bin)));
  if (history.closed.length) panel.append(element("div", { class: "experiments-captioned" }, closingsTable(desk, one)));
  return panel;
}

/** The bins of the score, by their names; one only where the score does not matter. */
function binsOf(desk, one) {
  const { t, number } = desk.context;
  const { edges } = one.history;
  if (!edges.length) return [t("allUnits")];
  const score = one.definition.allocation.score ?? t("score");
  const told = (edge) => number(edge, 2);
  return [
    t("binBelow", { score, edge: told(edges[0]) }),
    ...edges.slice(1).map((edge, place) => t("binBetween", { score, from: told(edges[place]), to: told(edge) })),
    t("binAbove", { score, edge: told(edges.at(-1)) }),
    t("binNone"),
  ];
}

function areaNode(desk, one, bin) {
  const { element, t, time, percent, language } = desk.context;
  const { points, closed, began_ms: began, until_ms: until } = one.history;
  const moments = [...points.map((point) => point.from_ms), Math.max(until, points.at(-1).from_ms)].map(local);
  const arms = one.definition.arms;
  const traces = arms.map((arm, place) => {
    const shares = points.map((point) => point.bins[bin][place]);
    return {
      type: "scatter", mode: "lines", name: arm, stackgroup: "arms", x: moments, y: [...shares, shares.at(-1)],
      line: { shape: "hv", width: 0.5 }, hovertemplate: `${arm}: %{y:.1%}<extra></extra>`,
    };
  });
  const why = { killed: t("killed"), guardrail: t("guardrail") };
  const last = points.at(-1).bins[bin];
  const node = element("div", {});
  const dated = language === "de" ? "%d.%m." : "%d/%m";
  desk.chart(node, traces, {
    height: 320, hovermode: "x unified", legend: { orientation: "h", y: -0.18, traceorder: "normal" }, margin: { l: 48, r: 16, t: 26, b: 40 },
    yaxis: { range: [0, 1], tickformat: ".0%", fixedrange: true },
    xaxis: {
      type: "date", range: [local(began), local(Math.max(until, began + 1_000))], nticks: 5, tickangle: 0, fixedrange: true,
      tickformatstops: [
        { dtickrange: [null, 60_000], value: "%H:%M:%S" },
        { dtickrange: [60_000, 86_399_999], value: `%H:%M\n${dated}` },
        { dtickrange: [86_400_000, null], value: dated },
      ],
      hoverformat: `${dated} %H:%M`,
    },
    shapes: closed.map((closing) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: local(closing.at_ms), x1: local(closing.at_ms), line: { color: "var(--text)", width: 1.5, dash: "dot" },
    })),
    annotations: closed.map((closing, place) => ({
      x: local(closing.at_ms), yref: "paper", y: 1, yshift: place % 2 ? -8 : 9, text: `✕ ${closing.arm}`, showarrow: false,
      xanchor: closing.at_ms - began < (until - began) / 2 ? "left" : "right",
      font: { color: "var(--text)" }, bgcolor: "var(--panel)",
    })),
  }, t("overTimeSaid", {
    arms: arms.join(", "), from: time(began), until: time(until),
    shares: arms.map((arm, place) => `${arm} ${percent(last[place], 1)}`).join(", "),
    closed: closed.map((each) => t("closedSaid", { arm: each.arm, time: time(each.at_ms), why: why[each.why] })).join(""),
  }));
  return node;
}

function pointsTable(desk, one, bin) {
  const { t, table, time, percent } = desk.context;
  return table([
    { label: t("from"), header: true, value: (point) => figure(desk, point.from_ms, time(point.from_ms)) },
    ...one.definition.arms.map((arm, place) => ({
      label: arm, align: "right", value: (point) => figure(desk, point.bins[bin][place], percent(point.bins[bin][place], 1)),
    })),
  ], [...one.history.points].reverse(), t("overTime"));
}

function closingsTable(desk, one) {
  const { t, table, time } = desk.context;
  const reason = ({ arm, why }) => {
    const stop = (one.stopped ?? []).find((each) => each.arm === arm);
    if (why === "killed" || !stop) return t("closedKilled");
    return t("closedGuardrail", { goal: stop.goal, lift: signed(desk, stop.lift), high: signed(desk, stop.high), worst: signed(desk, stop.worst) });
  };
  return table([
    { label: t("arm"), header: true, value: ({ arm }) => arm },
    { label: t("at"), value: ({ at_ms: at }) => figure(desk, at, time(at)) },
    { label: t("why"), value: reason },
  ], one.history.closed, t("closings"));
}
