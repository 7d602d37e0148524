// What every view is given: texts and numbers in the chosen language, the API with the key, DOM nodes, charts.

import { chart } from "./charts.js";
import { texts as own } from "./texts.js";

const LANGUAGES = ["en", "de"];
const THEMES = ["system", "dark", "light"];
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
const SVG = "http://www.w3.org/2000/svg";

// The key lives here and nowhere else: not in an address, not in storage.
let key = "";
const keyListeners = new Set();

export const preferences = {
  get language() {
    const kept = remembered("lotse-language", LANGUAGES);
    return kept ?? (navigator.language.toLowerCase().startsWith("de") ? "de" : "en");
  },
  set language(value) { remember("lotse-language", value); },
  get theme() { return remembered("lotse-theme", THEMES) ?? "system"; },
  set theme(value) { remember("lotse-theme", value); },
  languages: LANGUAGES,
  themes: THEMES,
};

function remembered(name, allowed) {
  try {
    const value = localStorage.getItem(name);
    return allowed.includes(value) ? value : null;
  } catch {
    return null; // storage is switched off: the choice lasts as long as the page
  }
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* as above */ }
}

export class ApiError extends Error {
  constructor(status, problem = {}) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.name = "ApiError";
    this.status = status;
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.problem = problem;
  }
}

// ---- texts ----

export function translator(texts = {}) {
  const language = preferences.language;
  const tables = [texts[language], own[language]].filter(Boolean);
  return (name, values = {}) => {
    const wanted = values.count === 1 ? [`${name}_one`, name] : [name];
    for (const one of wanted) {
      const table = tables.find((each) => one in each);
      if (table) return table[one].replace(/\{(\w+)\}/g, (whole, field) => (field in values ? String(values[field]) : whole));
    }
    const error = new Error(`no text ${name} in ${language}`);
    if (navigator.webdriver) throw error; // a test notices; a person rather reads the name than nothing
    console.error(error);
    return name;
  };
}

// ---- numbers ----

const NOTHING = "–";

function missing(x) {
  return x === null || x === undefined || Number.isNaN(x);
}

function formats(t) {
  const language = preferences.language;
  const known = new Map();
  const format = (style, digits) => {
    const name = `${style}${digits}`;
    if (!known.has(name)) {
      const options = { style, minimumFractionDigits: digits, maximumFractionDigits: digits };
      known.set(name, new Intl.NumberFormat(language, options));
    }
    return known.get(name);
  };
  const two = (unit, large, smaller, small) => [[unit, large], [smaller, small]].filter(([, x], place) => !place || x)
    .map(([name, x]) => t(`time.${name}`, { x: number(x) })).join(" ");
  const days = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
  const times = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  const number = (x, digits = 0) => (missing(x) ? NOTHING : format("decimal", digits).format(x));
  return {
    number,
    percent: (x, digits = 1) => (missing(x) ? NOTHING : format("percent", digits).format(x)),
    seconds: (x) => {
      if (missing(x)) return NOTHING;
      if (x < 10 && !Number.isInteger(x)) return t("time.second", { x: number(x, 1) });
      const whole = Math.round(x);
      if (whole < 60) return t("time.second", { x: number(whole) });
      if (whole < 3600) return two("minute", Math.floor(whole / 60), "second", whole % 60);
      if (whole < 86400) return two("hour", Math.floor(whole / 3600), "minute", Math.floor((whole % 3600) / 60));
      return two("day", Math.floor(whole / 86400), "hour", Math.floor((whole % 86400) / 3600));
    },
    day: (ms) => (missing(ms) ? NOTHING : days.format(ms)),
    time: (ms) => (missing(ms) ? NOTHING : times.format(ms)),
  };
}

// ---- nodes ----

export function element(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const node = svg ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "value" && !svg) node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

let names = 0;

export function uniqueId(prefix = "id") {
  names += 1;
  return `${prefix}-${names}`;
}

/** columns: {label, value(row), align: "right", sort(row), raw(row), header: true, class}; rows: anything. */
function table(columns, rows, caption) {
  const body = element("tbody");
  let order = { column: null, down: false };
  const heads = columns.map((column) => {
    const th = element("th", { scope: "col", class: column.align });
    if (!column.sort) {
      append(th, [column.label]);
      return th;
    }
    th.append(element("button", { type: "button", onclick: () => {
      order = { column, down: order.column === column ? !order.down : true };
      fill();
    } }, column.label));
    return th;
  });
  function fill() {
    const shown = [...rows];
    if (order.column) {
      const { column, down } = order;
      shown.sort((one, other) => compare(column.sort(one), column.sort(other)) * (down ? -1 : 1));
    }
    heads.forEach((th, place) => {
      const sorted = columns[place] === order.column;
      if (sorted) th.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    body.replaceChildren(...shown.map((row) => element("tr", {}, columns.map((column) => {
      const attributes = { class: [column.align, column.class].filter(Boolean).join(" ") || null };
      if (column.raw) attributes["data-value"] = column.raw(row) ?? "";
      if (column.header) attributes.scope = "row";
      return element(column.header ? "th" : "td", attributes, column.value(row));
    }))));
  }
  fill();
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, heads)), body));
}

function compare(one, other) {
  if (missing(one) || missing(other)) return Number(!missing(one)) - Number(!missing(other));
  return typeof one === "string" ? one.localeCompare(other, preferences.language) : one - other;
}

function empty(message, hint) {
  return element("div", { class: "panel empty" }, element("strong", {}, message), hint ? element("span", {}, hint) : null);
}

function failing(t) {
  return (error, retry = () => window.dispatchEvent(new Event("hashchange"))) => {
    const unreachable = error instanceof TypeError;
    const title = unreachable ? t("frame.unreachable") : error.title || t("frame.failed");
    const detail = unreachable ? t("frame.unreachable.hint") : error.detail || error.message;
    return element("div", { class: "panel failure", role: "alert" }, element("h3", {}, title), element("p", {}, detail),
      element("button", { type: "button", onclick: retry }, t("frame.retry")));
  };
}

// ---- the API ----

/** Where a path of the service is, also behind a proxy that gives it a path of its own. */
function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI);
}

function headersOf(more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : { ...more };
}

export async function api(path, options = {}) {
  const { body, headers = {}, ...rest } = options;
  const given = body === undefined ? {} : { "Content-Type": "application/json" };
  for (;;) {
    const answer = await fetch(address(path), {
      ...rest, credentials: "omit", cache: "no-store", headers: headersOf({ Accept: "application/json", ...given, ...headers }),
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const error = await problemOf(answer);
    if (!(await mayTryAgain(error))) throw error;
  }
}

async function problemOf(answer) {
  try {
    return new ApiError(answer.status, await answer.json());
  } catch {
    return new ApiError(answer.status, { title: answer.statusText });
  }
}

async function mayTryAgain(error) {
  return (error.status === 401 || error.status === 403) && askForKey(error.detail);
}

/** Tells onEvent {type: "open"}, each event as {type, data, id}, and {type: "closed", error}; until the signal aborts. */
export async function stream(path, onEvent, signal) {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    let error = null;
    try {
      const headers = headersOf({ Accept: "text/event-stream" });
      const answer = await fetch(address(path), { signal, credentials: "omit", cache: "no-store", headers });
      if (!answer.ok) throw await problemOf(answer);
      onEvent({ type: "open" });
      for await (const event of events(answer.body)) {
        wait = FIRST_WAIT_MS;
        if (signal.aborted) return;
        onEvent(event);
      }
    } catch (found) {
      error = found;
    }
    if (signal.aborted) return;
    if (error instanceof ApiError && (await mayTryAgain(error))) continue;
    if (signal.aborted) return;
    onEvent({ type: "closed", error });
    // a key that was refused, or a question that is wrong, is no better a second later
    if (error instanceof ApiError && error.status < 500 && error.status !== 429) return;
    await sleep(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const event = { type: "message", data: "", id: "" };
        for (const line of part.split("\n")) {
          const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
          if (field === "event") event.type = text;
          else if (field === "data") event.data += text;
          else if (field === "id") event.id = text;
        }
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

// ---- the key ----

let asking = null;

export function hasKey() {
  return key !== "";
}

export function forgetKey() {
  key = "";
  for (const tell of keyListeners) tell();
}

export function onKey(tell) {
  keyListeners.add(tell);
}

/** Ask for a key; whether one was given. All that wait for one wait for the same dialog. */
export function askForKey(why = "") {
  asking ??= dialog(why).finally(() => { asking = null; });
  return asking;
}

function dialog(why) {
  const t = translator();
  return new Promise((resolve) => {
    const input = element("input", { type: "password", id: uniqueId("key"), autocomplete: "off", spellcheck: "false" });
    const title = uniqueId("title");
    const end = (given) => { box.close(); box.remove(); resolve(given); };
    const form = element("form", { onsubmit: (event) => {
      event.preventDefault();
      key = input.value.trim();
      for (const tell of keyListeners) tell();
      end(key !== "");
    } },
    element("h2", { id: title }, t("key.title")),
    why ? element("p", { class: "bad" }, why) : null,
    element("p", {}, t("key.why")),
    element("p", {}, element("code", {}, "lotse keys create --kind secret --name console")),
    element("p", { class: "field" }, element("label", { for: input.id }, t("key.label")), input),
    element("p", { class: "note" }, t("key.kept")),
    element("div", { class: "controls" },
      element("button", { type: "button", onclick: () => end(false) }, t("key.cancel")),
      element("button", { type: "submit", class: "primary" }, t("key.use"))));
    const box = element("dialog", { "aria-labelledby": title, oncancel: () => end(false) }, form);
    document.body.append(box);
    box.showModal();
    input.focus();
  });
}

// ---- what a view gets ----

/** The place in the address: `#journeys?funnel=…`. */
export function place() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  return { view, params: new URLSearchParams(query) };
}

export function announce(text) {
  const node = document.getElementById("announcer");
  node.textContent = text;
}

export function contextFor(view, texts, signal) {
  const t = translator(texts);
  return {
    t, ...formats(t), api, stream, element, chart, table, empty, failure: failing(t), announce, signal, uniqueId,
    ApiError, askForKey, hasKey, language: preferences.language,
    params: place().params,
    setParams(values) {
      for (const [name, value] of Object.entries(values)) {
        this.params.delete(name);
        for (const one of Array.isArray(value) ? value : [value]) {
          if (one !== null && one !== undefined && one !== "") this.params.append(name, one);
        }
      }
      const query = this.params.toString();
      history.replaceState(null, "", `#${view}${query ? `?${query}` : ""}`);
    },
  };
}
