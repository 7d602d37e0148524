// All experiments, by where they stand, each with what is to be known at a glance.

import { closedArms, deciding, railState, ratioState, standing, unitsOf } from "./experiments_data.js";
import { badge, figure, heading, signed, toneOfVerdict } from "./experiments_parts.js";

const STANDINGS = ["running", "draft", "won", "stopped"];

export function listNode(desk) {
  const { element, t, empty } = desk.context;
  const all = Object.entries(desk.state.experiments);
  const top = [
    element("p", { class: "note" }, t("about")),
    element("div", { class: "controls" },
      desk.readOnly ? null : element("a", { class: "experiments-button experiments-primary", href: "#experiments?define=" }, t("define")),
      element("a", { class: "experiments-button", href: "#experiments?versions=1" }, t("versionsLink"))),
    desk.state.error ? element("div", { class: "panel failure" }, element("p", {}, t("fileError")), element("pre", { class: "scroll" }, desk.state.error)) : null,
    desk.readOnly ? element("p", { class: "note" }, t("readOnly")) : null,
  ];
  if (!all.length) return element("div", {}, top, empty(t("none"), t("noneHint")));
  const asked = desk.context.params.get("show") ?? "";
  const shown = STANDINGS.filter((one) => !STANDINGS.includes(asked) || one === asked);
  const sections = shown.map((one) => sectionNode(desk, one, all.filter(([, each]) => standing(each) === one)));
  return element("div", {}, top, chips(desk, all, asked),
    sections.some(Boolean) ? sections : element("p", { class: "note" }, t("noneOfThese")));
}

function chips(desk, all, asked) {
  const { element, t, number } = desk.context;
  return element("div", { class: "controls", role: "group", "aria-label": t("filter") }, ["", ...STANDINGS].map((one) => {
    const count = all.filter(([, each]) => !one || standing(each) === one).length;
    return element("button", {
      type: "button", class: "chip", id: `experiments-show-${one || "all"}`, "aria-pressed": String(one === asked),
      onclick: () => {
        desk.context.setParams({ show: one });
        desk.draw();
      },
    }, `${one ? t(`${one}s`) : t("all")} (${number(count)})`);
  }));
}

function sectionNode(desk, which, experiments) {
  if (!experiments.length) return null;
  const { element, t } = desk.context;
  const id = `experiments-${which}`;
  return element("section", { "aria-labelledby": id },
    heading(desk, t(`${which}s`), { id }),
    element("ul", { class: "experiments-list" }, experiments.map(([key, one]) => cardNode(desk, key, one))));
}

function cardNode(desk, key, one) {
  const { element, t, number } = desk.context;
  const { definition } = one;
  const units = unitsOf(one);
  const closed = closedArms(one);
  const facts = [
    [t("arms"), definition.arms.map((arm, place) => [
      place ? ", " : "", closed.has(arm) ? element("s", { title: t(closed.get(arm)) }, arm) : arm,
    ])],
    [t("units"), units.any ? [figure(desk, units.total, number(units.total)), units.few ? ` + (${t("few")})` : ""] : "–"],
    [t("allocation"), one.allocation],
    ...(definition.winner ? [[t("whichWinner"), definition.winner]] : []),
    [t("ratio"), badge(desk, t(`ratio.short.${ratioState(one)}`), { ok: "good", alarm: "bad" }[ratioState(one)])],
    [t("guardrails"), badge(desk, t(`rail.short.${railState(one)}`), { ok: "good", broken: "bad", watch: "warn" }[railState(one)])],
  ];
  const results = deciding(one).map((result) => element("li", {},
    `${result.goal}, ${result.arm}: `, figure(desk, result.lift, signed(desk, result.lift)), " ",
    badge(desk, t(`verdict.${result.verdict}`), toneOfVerdict(result.verdict))));
  return element("li", { class: "panel experiments-card", "data-experiment": key },
    element("h4", {}, element("a", { href: `#experiments?experiment=${encodeURIComponent(key)}` }, definition.name || key)),
    element("p", { class: "note" }, element("code", {}, key), " · ", t("phaseOf", { phase: definition.phase })),
    element("dl", { class: "experiments-facts" }, facts.map(([label, value]) =>
      element("div", {}, element("dt", {}, label), element("dd", {}, value)))),
    results.length ? element("ul", { class: "experiments-lines" }, results) : null);
}
