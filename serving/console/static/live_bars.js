// Counts as bars, with the same numbers as a table beneath; redrawn in place.

const HEIGHT = 64;
const WIDTH = 240;
const GAP = 3;

/** labels: of the bars; returns {node, update(counts)}. description: for who does not see it. */
export function bars(context, labels, description, colour) {
  const { element, number, percent, t } = context;
  const step = WIDTH / labels.length;
  const rects = labels.map((label, place) => element("svg:rect", {
    x: place * step, y: HEIGHT, width: step - GAP, height: 0, rx: 1.5, fill: `var(${colour})`,
  }, element("svg:title", {}, label)));
  const picture = element("svg:svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "bars", preserveAspectRatio: "none", role: "img", "aria-label": description,
  }, element("svg:line", { x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5, stroke: "var(--line)" }), rects);
  const cells = labels.map(() => [element("td", { class: "right" }), element("td", { class: "right" })]);
  const numbers = element("details", {}, element("summary", {}, t("numbers")),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": description },
      element("table", {}, element("caption", {}, description),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, t("column_range")),
          element("th", { scope: "col", class: "right" }, t("column_count")), element("th", { scope: "col", class: "right" }, t("column_share")))),
        element("tbody", {}, labels.map((label, place) => element("tr", {}, element("th", { scope: "row" }, label), cells[place]))))));
  let shown = "";
  return {
    node: element("div", { class: "counted" }, picture,
      element("div", { class: "ends quiet", "aria-hidden": "true" }, element("span", {}, labels[0]), element("span", {}, labels.at(-1))), numbers),
    update(counts) {
      const now = counts.join();
      if (now === shown) return;
      shown = now;
      const most = Math.max(...counts, 1);
      const total = counts.reduce((sum, count) => sum + count, 0);
      counts.forEach((count, place) => {
        const height = count ? Math.max((count / most) * (HEIGHT - 2), 1.5) : 0;
        rects[place].setAttribute("height", height.toFixed(1));
        rects[place].setAttribute("y", (HEIGHT - height).toFixed(1));
        const [cell, share] = cells[place];
        cell.textContent = number(count);
        cell.dataset.value = count;
        share.textContent = percent(total ? count / total : null);
      });
    },
  };
}

/** The names of ranges that end at each of some edges, and of the one beyond. */
export function ranges(context, edges) {
  const { seconds, t } = context;
  const names = edges.map((edge, place) => (place
    ? t("bar_range", { from: seconds(edges[place - 1]), to: seconds(edge) })
    : t("bar_upto", { value: seconds(edge) })));
  return [...names, t("bar_over", { value: seconds(edges.at(-1)) })];
}
