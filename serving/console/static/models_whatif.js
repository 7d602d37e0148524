// What if one acted on every session whose score reaches a threshold: the slider, its numbers and the expected effect.

import { effects, expected, line } from "./models_effect.js";

export function whatIf(one, shared) {
  const { t, panel, missing, chart, numbers, element, select, context, number, percent, figure, age } = shared;
  const sources = ["realised", "test"].filter((name) => one.what_if[name]?.moments.length);
  if (!sources.length) return missing("what_if", one.champion ? "what_if.old" : "models.nothing");
  const { asked } = shared;
  const amounts = one.task === "value";
  const state = {
    source: sources.includes(asked.of) ? asked.of : sources[0],
    moment: asked.moment,
    place: null,
    perDay: shared.found.sessions_per_day?.sessions ?? null,
    effect: { value: 0.1, low: null, high: null },
  };
  const source = () => one.what_if[state.source];
  const table = () => source().moments.find((moment) => moment.moment === state.moment) ?? source().moments[0];
  const share = (x, digits = 1) => (amounts ? number(x, 2) : percent(x, digits));

  const slider = element("input", { type: "range", min: 0, step: 1, id: "models-threshold", "aria-describedby": "models-threshold-said" });
  const said = element("output", { id: "models-threshold-said", for: "models-threshold", class: "models-said" });
  const shownTiles = element("dl", { class: "tiles" });
  const formula = element("div", { class: "models-formula" });
  const about = element("p", { class: "note" });
  const chosen = element("div", { class: "controls" });
  const tables = element("div", {});
  const drawn = chart([], {}, "");

  slider.addEventListener("input", () => {
    state.place = Number(slider.value);
    tell();
    picture();
  });
  slider.addEventListener("change", remember);

  /** The slider grows with the threshold; lines fall with it. */
  const at = () => table().threshold.length - 1 - state.place;

  function remember() {
    context.setParams({ head: shared.head, of: state.source, moment: state.moment, at: table().threshold[at()] });
  }

  function tableChanged(threshold = null) {
    state.moment = table().moment;
    const { threshold: all } = table();
    const found = threshold === null ? Math.floor(all.length / 10) : all.findIndex((one) => one <= threshold);
    state.place = all.length - 1 - (found < 0 ? all.length - 1 : found);
    slider.max = all.length - 1;
    slider.value = state.place;
    chosen.replaceChildren(
      sources.length > 1 ? select(t("what_if.source"), sources.map((name) => [name, t(`what_if.source.${name}`)]), state.source, (value) => { state.source = value; tableChanged(table().threshold[at()]); remember(); }) : "",
      select(t("what_if.moment"), source().moments.map((moment) => [moment.moment, age(moment.moment)]), state.moment, (value) => { state.moment = value; tableChanged(); remember(); }));
    about.textContent = t(source().every_row ? "what_if.rows" : "what_if.drawn", {
      sessions: number(source().sessions), visitors: number(source().visitors), k: source().least_visitors, from: context.day(source().first), to: context.day(source().last),
    }) + (sources.length === 1 && sources[0] === "test" ? ` ${t("what_if.no_realised")}` : "");
    numbersOf();
    tell();
    picture();
  }

  function tell() {
    const found = line(table(), at());
    const score = number(found.threshold, amounts ? 2 : 3);
    slider.setAttribute("aria-valuetext", t("what_if.said", { score, reach: percent(found.reach.value), precision: share(found.precision.value) }));
    said.replaceChildren(t("what_if.from"), " ", figure(found.threshold, score, { "data-name": "threshold" }));
    const tile = (name, raw, shown, more) => element("div", { class: "tile", "data-tile": name }, element("dt", {}, t(`what_if.${name}`)),
      element("dd", {}, figure(raw, shown, { "data-name": name })), element("dd", { class: "models-more" }, more ?? ""));
    const band = (of, format) => `${format(of.low)} – ${format(of.high)}`;
    shownTiles.replaceChildren(
      tile("reach", found.reach.value, percent(found.reach.value), band(found.reach, (x) => percent(Math.min(x, 1)))),
      tile(amounts ? "amount" : "precision", found.precision.value, share(found.precision.value), band(found.precision, (x) => share(amounts ? x : Math.min(x, 1)))),
      tile("recall", found.recall, percent(found.recall), t("what_if.recall.more")),
      tile("lift", found.lift, number(found.lift, 2), t("what_if.lift.more")),
    );
    const effect = expected(found, state.perDay, state.effect);
    const unit = t(amounts ? "what_if.amounts" : "what_if.sessions");
    formula.replaceChildren(...(effect === null ? [element("p", { class: "quiet" }, t("what_if.missing"))] : [
      element("p", { class: "models-equation" }, `${number(state.perDay, 0)} × ${percent(found.reach.value)} × ${share(found.precision.value)} × ${percent(state.effect.value)} = `,
        element("strong", {}, figure(effect.value, `${number(effect.value, 1)} ${unit}`, { "data-name": "effect" }))),
      element("p", { class: "note" }, t("what_if.band", { low: number(effect.low, 1), high: number(effect.high, 1) }), " ",
        t("what_if.acted", { acted: number(effect.acted, 0) })),
    ]));
  }

  function picture() {
    const lines = table().threshold.map((_, place) => line(table(), place));
    const x = lines.map((each) => each.threshold);
    const now = line(table(), at());
    const traces = [
      { x, y: lines.map((each) => each.reach.value), mode: "lines", name: t("what_if.reach"), line: { color: "var(--series-1)" } },
      { x, y: lines.map((each) => each.precision.value), mode: "lines", name: t(amounts ? "what_if.amount" : "what_if.precision"), line: { color: "var(--series-2)" }, ...(amounts ? { yaxis: "y2" } : {}) },
      { x: [now.threshold], y: [now.reach.value], mode: "markers", marker: { color: "var(--series-1)", size: 11 }, showlegend: false, hoverinfo: "skip" },
      { x: [now.threshold], y: [now.precision.value], mode: "markers", marker: { color: "var(--series-2)", size: 11 }, showlegend: false, hoverinfo: "skip", ...(amounts ? { yaxis: "y2" } : {}) },
    ];
    const layout = { height: 300, xaxis: { title: { text: t("what_if.threshold") } }, yaxis: { rangemode: "tozero", tickformat: ".0%" }, legend: { orientation: "h", y: 1.15 }, margin: { l: 52, r: amounts ? 52 : 12, t: 24, b: 44 },
      ...(amounts ? { yaxis2: { overlaying: "y", side: "right", rangemode: "tozero" } } : {}),
      shapes: [{ type: "line", yref: "paper", x0: now.threshold, x1: now.threshold, y0: 0, y1: 1, line: { color: "var(--quiet)", dash: "dot", width: 1.5 } }] };
    drawn.update(traces, layout, t("what_if.description", { n: lines.length }));
  }

  function numbersOf() {
    const lines = table().threshold.map((_, place) => line(table(), place));
    const right = (label, of, format) => ({ label, align: "right", value: (each) => format(of(each)), raw: of, sort: of });
    tables.replaceChildren(numbers([
      { ...right(t("what_if.threshold"), (each) => each.threshold, (x) => number(x, 4)), header: true },
      right(t("models.sessions"), (each) => each.sessions, number), right(t(amounts ? "what_if.brought" : "what_if.answers"), (each) => each.answers, (x) => number(x, amounts ? 2 : 0)),
      right(t("what_if.reach"), (each) => each.reach.value, percent), right(t(amounts ? "what_if.amount" : "what_if.precision"), (each) => each.precision.value, share),
      right(t("what_if.recall"), (each) => each.recall, percent), right(t("what_if.lift"), (each) => each.lift, (x) => number(x, 2)),
    ], lines, t("what_if.table", { moment: age(table().moment) })));
  }

  const entry = (name, value, changed, options = {}) => {
    const node = element("input", { type: "number", step: "any", name, inputmode: "decimal", ...options });
    if (value !== null) node.value = value;
    node.addEventListener("input", () => {
      const given = node.value === "" ? null : Number(node.value);
      const wrong = given !== null && (!Number.isFinite(given) || (name === "per_day" && given < 0));
      node.setAttribute("aria-invalid", String(wrong));
      changed(wrong ? null : given);
      tell();
    });
    return node;
  };
  const field = (name, node) => element("label", { class: "field" }, t(`what_if.${name}`), node);
  const part = (name) => entry(name, state.effect[name] === null ? null : 100 * state.effect[name], (given) => { state.effect[name] = given === null ? null : given / 100; });
  const nodes = { value: part("value"), low: part("low"), high: part("high") };
  const perDay = entry("per_day", state.perDay === null ? null : Math.round(state.perDay), (given) => { state.perDay = given; }, { min: 0 });
  const picked = element("div", {});
  const known = shared.found.sessions_per_day;

  async function offer() {
    let found = [];
    try {
      found = effects(await context.api("/v1/experiments/state"));
    } catch {
      return; // without experiments an effect is typed in
    }
    if (!found.length) return;
    const names = found.map((result, place) => [String(place), t("what_if.picked", { experiment: result.experiment, arm: result.arm, goal: result.goal, lift: percent(result.lift) })]);
    picked.replaceChildren(select(t("what_if.pick"), [["", t("what_if.typed")], ...names], "", (value) => {
      const result = found[Number(value)];
      if (value === "" || !result) return;
      state.effect = { value: result.lift, low: result.low ?? null, high: result.high ?? null };
      for (const name of ["value", "low", "high"]) nodes[name].value = state.effect[name] === null ? "" : Number((100 * state.effect[name]).toPrecision(6));
      tell();
    }));
  }

  const threshold = asked.at === undefined ? NaN : Number(asked.at);
  tableChanged(Number.isFinite(threshold) ? threshold : null);
  offer();
  return panel("what_if", chosen,
    element("div", { class: "models-slider" }, element("label", { for: "models-threshold" }, t("what_if.threshold")), slider, said),
    shownTiles, drawn.node, about,
    element("h4", {}, t("what_if.expected")),
    element("div", { class: "models-fields" }, field("per_day", perDay), field("value", nodes.value), field("low", nodes.low), field("high", nodes.high)), picked,
    element("p", { class: "note" }, known ? t("what_if.known", { days: known.days, count: known.days }) : t("what_if.unknown")),
    formula, element("p", { class: "note" }, t("what_if.assumes")), tables);
}
