// What moves the champion's scores: the features with the largest mean contribution, in the catalogue's words.

const SHOWN = 12;

export function reasons(one, { t, panel, missing, chart, context, number }) {
  if (!one.reasons.length) return missing("reasons", one.champion ? "reasons.old" : "models.nothing");
  const lines = one.reasons.slice(0, SHOWN).reverse();
  const traces = [{ type: "bar", orientation: "h", x: lines.map((line) => line.contribution), y: lines.map((line) => line.feature), marker: { color: "var(--series-1)" }, name: t("reasons.contribution") }];
  const layout = { height: 90 + 24 * lines.length, xaxis: { title: { text: t("reasons.contribution") } }, yaxis: { type: "category", automargin: true }, margin: { l: 8, r: 12, t: 8, b: 44 } };
  return panel("reasons", chart(traces, layout, t("reasons.description", { n: lines.length, first: one.reasons[0].feature })).node, context.table([
    { label: t("drift.feature"), value: (line) => line.feature, header: true, sort: (line) => line.feature },
    { label: t("reasons.contribution"), align: "right", value: (line) => number(line.contribution, 4), raw: (line) => line.contribution, sort: (line) => line.contribution },
    { label: t("reasons.meaning"), value: (line) => line.meaning ?? "–", class: "models-meaning" },
    { label: t("reasons.unit"), value: (line) => line.unit ?? "–" },
  ], one.reasons, t("reasons.table")));
}
