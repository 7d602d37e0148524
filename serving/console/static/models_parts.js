// What the sections of Model health share: figures with their raw value, panels with a chart and its table, names.

export function parts(context, found, head, asked) {
  const { t, element, number, percent } = context;
  const charts = [];

  /** A figure as it is read, with its raw value for whoever reads the page by machine. */
  const figure = (raw, shown, attributes = {}) => element("span", { "data-value": raw ?? "", ...attributes }, shown);

  /** low to high; nothing where there is no interval. */
  const interval = (low, high, format) => (low === null || low === undefined || high === null || high === undefined
    ? "–" : `${format(low)} – ${format(high)}`);

  const panel = (name, ...children) => element("section", { class: "panel", "data-section": name },
    element("h3", {}, t(`${name}.title`)), element("p", { class: "note" }, t(`${name}.about`)), ...children);

  const missing = (name, key, values) => panel(name, element("p", { class: "quiet" }, t(key, values)));

  function chart(traces, layout, description) {
    const node = element("div", {});
    // a chart is as wide as its place, which it has once it is in the page
    requestAnimationFrame(() => {
      if (node.isConnected) one.drawn = context.chart(node, one.traces, one.layout, one.description);
    });
    const one = { node, traces, layout, description, drawn: null };
    charts.push(one);
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", description);
    return {
      node,
      update(newTraces, newLayout, newDescription) {
        one.traces = newTraces;
        one.layout = newLayout;
        one.description = newDescription;
        node.setAttribute("aria-label", newDescription);
        one.drawn?.update(newTraces, newLayout);
      },
    };
  }

  const numbers = (columns, rows, caption) => element("details", {}, element("summary", {}, t("models.numbers", { what: caption })),
    context.table(columns, rows, caption));

  function select(label, options, chosen, changed) {
    const node = element("select", { onchange: () => changed(node.value) },
      options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
    return element("label", {}, label, node);
  }

  return {
    context, found, head, asked, t, element, number, percent, figure, interval, panel, missing, chart, numbers, select,
    age: (name) => ageName(name, t),
    group: (name) => groupName(name, t),
    metric: (name) => (name.startsWith("lift_") ? t("metric.lift", { n: name.slice(5) }) : t(`metric.${name}`)),
    verb: (name) => name || t("models.by_hand"),
    remove: () => charts.forEach((one) => one.drawn?.remove()),
  };
}

const KINDS = ["any", "prefix", "seconds", "events", "idle", "all"];

/** Session ages from the first event to all rows, the same wherever they are shown. */
export function inOrder(names) {
  const place = (name) => {
    const [kind, counted] = name.split("_");
    return KINDS.indexOf(kind) * 1e6 + Number(counted ?? 0);
  };
  return [...names].sort((one, other) => place(one) - place(other));
}

/** prefix_1, seconds_30, events, idle, all, device=mobile: as people read them. */
function ageName(name, t) {
  const counted = /^(prefix|seconds)_(.+)$/.exec(name);
  if (counted) return t(`age.${counted[1]}`, { n: counted[2] });
  return ["any", "events", "idle", "all"].includes(name) ? t(`age.${name}`) : name.replace("=", ": ");
}

/** The groups of `training.realised`: event 1, events 3-4, events 10 on, silent. */
function groupName(name, t) {
  const found = /^events? (\d+)(?:-(\d+)| (on))?$/.exec(name);
  if (!found) return name === "silent" ? t("age.idle") : name.replace(" to ", " – ");
  if (found[2]) return t("group.between", { from: found[1], to: found[2] });
  return found[3] ? t("group.from", { from: found[1] }) : t("age.prefix", { n: found[1] });
}

/** Plotly's error bars of lines with low and high. */
export function whiskers(lines, at, low, high, colour) {
  return {
    type: "data", symmetric: false, color: colour, thickness: 1.3, width: 3,
    array: lines.map((line) => distance(high(line), at(line))),
    arrayminus: lines.map((line) => distance(at(line), low(line))),
  };
}

function distance(above, below) {
  return above === null || below === null || above === undefined || below === undefined ? 0 : Math.max(above - below, 0);
}

/** A moment as Plotly shows it in this place's time. */
export function moment(ms) {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace("T", " ");
}

export const timeAxis = () => ({
  type: "date", tickformat: document.documentElement.lang === "de" ? "%H:%M\n%d.%m." : "%H:%M\n%d %b", nticks: 6,
});

export const across = (at, colour = "var(--quiet)") => ({
  type: "line", xref: "paper", x0: 0, x1: 1, y0: at, y1: at, line: { color: colour, dash: "dash", width: 1.5 },
});
