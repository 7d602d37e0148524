// Small nodes that several parts of the view are made of.

/** A heading that the focus may be put on. */
export function heading(desk, text, { level = 3, id = null } = {}) {
  return desk.context.element(`h${level}`, { id, tabindex: -1 }, text);
}

/** A number with its raw value, so that it can be compared with what the service said. */
export function figure(desk, raw, text) {
  return desk.context.element("span", { class: "experiments-figure", "data-value": raw === null || raw === undefined ? "null" : String(raw) }, text);
}

/** A word on a pill; tone: good, warn, bad or none. */
export function badge(desk, text, tone = "") {
  return desk.context.element("span", { class: `badge ${tone || "quiet"}` }, text);
}

export function toneOfVerdict(verdict) {
  return { better: "good", worse: "bad", invalid: "bad" }[verdict] ?? "";
}

/** A share with its sign. */
export function signed(desk, share, digits = 1) {
  const text = desk.context.percent(share, digits);
  return share > 0 ? `+${text}` : text;
}

/** A p-value, which is never quite 0. */
export function pValue(desk, p) {
  if (p === null || p === undefined) return desk.context.number(null);
  if (p < 0.0001) return `< ${desk.context.number(0.0001, 4)}`;
  return desk.context.number(p, p < 0.01 ? 4 : 3);
}

/** Labels and values beneath each other: [label, value, whether it is wide]. */
export function factsNode(desk, facts) {
  const { element } = desk.context;
  return element("dl", { class: "experiments-facts" },
    facts.filter(Boolean).map(([label, value]) => element("div", {}, element("dt", {}, label), element("dd", {}, value))));
}

/** A table that hides behind a word, for those who cannot see a chart or want its numbers. */
export function numbersNode(desk, id, table) {
  const { element, t } = desk.context;
  return element("details", { id }, element("summary", {}, t("numbers")), table);
}

/** The way back to all experiments. */
export function backNode(desk) {
  const { element, t } = desk.context;
  return element("p", {}, element("a", { href: "#experiments" }, `← ${t("back")}`));
}
