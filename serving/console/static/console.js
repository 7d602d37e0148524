// The console starts here: tabs, the address, colours and language, the key; each view is a module of its own.

import { redraw } from "./charts.js";
import { announce, askForKey, contextFor, element, forgetKey, hasKey, onKey, place, preferences, translator } from "./frame.js";

const VIEWS = ["live", "journeys", "models", "experiments"];

const root = document.documentElement;
const delivered = (root.dataset.views ?? "").split(" ");
const styles = (root.dataset.styles ?? "").split(" ");
const views = VIEWS.filter((view) => delivered.includes(view));
const section = document.getElementById("view");

let mounted = { view: "", unmount: null, abort: new AbortController(), turn: 0 };

function applyTheme() {
  const theme = preferences.theme;
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  redraw();
}

function drawFrame() {
  const t = translator();
  root.lang = preferences.language;
  const skip = document.getElementById("skip");
  skip.textContent = t("frame.skip");
  skip.onclick = (event) => { event.preventDefault(); section.focus(); };
  const tabs = document.getElementById("tabs");
  tabs.setAttribute("aria-label", t("frame.views"));
  tabs.replaceChildren(...views.map((view) => element("button", {
    type: "button", role: "tab", id: `tab-${view}`, "aria-controls": "view", onclick: () => go(view), onkeydown: moveBetweenTabs,
  }, t(`view.${view}`))));
  document.getElementById("choices").replaceChildren(
    choice(t("frame.language"), "language", preferences.languages, preferences.language, (each) => (each === "de" ? "Deutsch" : "English"), () => {
      drawFrame();
      show();
    }),
    choice(t("frame.theme"), "theme", preferences.themes, preferences.theme, (each) => t(`frame.theme.${each}`), applyTheme),
    keyButton(t),
  );
  markTab();
}

function choice(label, name, values, chosen, text, changed) {
  const options = values.map((each) => element("option", { value: each, selected: each === chosen, lang: name === "language" ? each : null }, text(each)));
  return element("select", { "aria-label": label, id: `choose-${name}`, onchange: (event) => {
    preferences[name] = event.target.value;
    changed();
    document.getElementById(`choose-${name}`).focus();
  } }, options);
}

function keyButton(t) {
  const set = hasKey();
  return element("button", { type: "button", id: "key", onclick: async () => {
    if (set) {
      forgetKey();
      announce(t("key.forgotten"));
      show();
    } else if (await askForKey()) {
      show();
    }
  } }, set ? t("key.forget") : t("key.set"));
}

function moveBetweenTabs(event) {
  const at = views.indexOf(event.currentTarget.id.slice(4));
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: views.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const view = views[(to + views.length) % views.length];
  go(view);
  document.getElementById(`tab-${view}`).focus();
}

function go(view) {
  if (place().view === view) return;
  location.hash = `#${view}`;
}

function current() {
  const { view } = place();
  return views.includes(view) ? view : views[0];
}

function markTab() {
  for (const view of views) {
    const tab = document.getElementById(`tab-${view}`);
    const chosen = view === current();
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  section.setAttribute("aria-labelledby", `tab-${current()}`);
}

function unmount() {
  mounted.abort.abort();
  try {
    mounted.unmount?.();
  } catch (error) {
    console.error(error);
  }
  mounted.unmount = null;
}

async function show() {
  unmount();
  const t = translator();
  const view = current();
  if (!view) {
    section.replaceChildren(element("p", { class: "note" }, t("frame.no_views")));
    return;
  }
  const turn = { view, unmount: null, abort: new AbortController() };
  mounted = turn;
  delete section.dataset.ready;
  markTab();
  document.title = `${t(`view.${view}`)} · Lotse`;
  section.dataset.view = view;
  const body = element("section", { class: `view view-${view}` }, element("h2", {}, t(`view.${view}`)));
  section.replaceChildren(body);
  let context = contextFor(view, {}, turn.abort.signal);
  try {
    const [module] = await Promise.all([import(`./${view}.js`), styled(view)]);
    if (mounted !== turn) return;
    context = contextFor(view, module.texts, turn.abort.signal);
    const end = await module.mount(body, context);
    if (mounted === turn) turn.unmount = end;
    else end?.();
    section.dataset.ready = view;
  } catch (error) {
    if (turn.abort.signal.aborted) return;
    console.error(error);
    body.append(context.failure(error, show));
  }
}

const loaded = new Map();

function styled(view) {
  if (!styles.includes(view)) return null;
  if (!loaded.has(view)) {
    loaded.set(view, new Promise((resolve) => {
      const link = element("link", { rel: "stylesheet", href: `console/static/${view}.css` });
      link.onload = link.onerror = resolve;
      document.head.append(link);
    }));
  }
  return loaded.get(view);
}

section.addEventListener("drawingfailed", (event) => {
  event.target.replaceChildren(element("p", { class: "note" }, translator()("frame.drawing_failed")));
});
window.addEventListener("hashchange", () => {
  if (location.hash === "#view") return;
  show();
});
matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);
onKey(() => document.getElementById("key")?.replaceWith(keyButton(translator())));

applyTheme();
drawFrame();
show();
