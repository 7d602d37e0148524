// Charts by Plotly, which is loaded when the first one is drawn; in the theme's colours, as wide as their place.

const FILE = new URL("plotly.min.js", import.meta.url);
const VARIABLE = /^var\((--[\w-]+)\)$/;
const drawn = new Set();
let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = FILE;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = null; reject(new Error("plotly cannot be loaded")); };
    document.head.append(script);
  });
  return loading;
}

/** Values with every `var(--name)` in them replaced by the theme's colour of now. */
function coloured(value, style) {
  if (typeof value === "string") {
    const found = VARIABLE.exec(value);
    return found ? style.getPropertyValue(found[1]).trim() : value;
  }
  if (ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map((one) => coloured(one, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, style)]));
  }
  return value;
}

function themed(layout, style) {
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  const given = coloured(layout, style);
  const out = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    colorway: [1, 2, 3, 4, 5, 6].map((place) => colour(`--series-${place}`)),
    margin: { l: 48, r: 12, t: 12, b: 40 }, height: 280,
    separators: document.documentElement.lang === "de" ? ",." : ".,",
    legend: { orientation: "h", y: -0.2 },
    ...given,
    font: { family: "system-ui, sans-serif", size: 13, color: colour("--text"), ...given.font },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--text") }, ...given.hoverlabel },
  };
  const axes = new Set(["xaxis", "yaxis", ...Object.keys(given).filter((name) => /^[xy]axis\d*$/.test(name))]);
  for (const name of axes) out[name] = { ...axis, ...given[name] };
  return out;
}

/** Draw; returns {update(traces, layout), remove()}. description: what a screen reader says instead. */
export function chart(node, traces, layout = {}, description = "") {
  node.classList.add("chart");
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", description);
  if (layout.height) node.style.minHeight = `${layout.height}px`;
  const one = { traces, layout, gone: false, queue: Promise.resolve() };
  const draw = () => {
    one.queue = one.queue.then(async () => {
      if (one.gone) return;
      let library;
      try {
        library = await plotly();
      } catch {
        node.dispatchEvent(new CustomEvent("drawingfailed", { bubbles: true }));
        return;
      }
      if (one.gone || !node.isConnected) return;
      const style = getComputedStyle(document.documentElement);
      const own = { width: Math.max(Math.floor(node.clientWidth), 120) };
      await library.react(node, coloured(one.traces, style), { ...themed(one.layout, style), ...own }, {
        displayModeBar: false, displaylogo: false, scrollZoom: false, doubleClick: false,
      });
      node.dataset.drawn = String(Number(node.dataset.drawn ?? 0) + 1);
    }).catch((error) => console.error(error));
    return one.queue;
  };
  one.draw = draw;
  let width = 0;
  const observer = new ResizeObserver(() => {
    const now = Math.floor(node.clientWidth);
    if (now && now !== width) {
      width = now;
      draw();
    }
  });
  observer.observe(node);
  drawn.add(one);
  draw();
  return {
    update(newTraces, newLayout) {
      one.traces = newTraces;
      if (newLayout) one.layout = newLayout;
      return draw();
    },
    remove() {
      one.gone = true;
      drawn.delete(one);
      observer.disconnect();
      if (window.Plotly && node.classList.contains("js-plotly-plot")) window.Plotly.purge(node);
    },
  };
}

/** All charts again, because the theme is another one. */
export function redraw() {
  for (const one of drawn) one.draw();
}
