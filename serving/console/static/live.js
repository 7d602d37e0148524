// The live view: what runs now, told by the service about once a second.

import { bars, ranges } from "./live_bars.js";
import { headName, sessionList } from "./live_list.js";
import { texts } from "./live_texts.js";

export { texts };

const TICK_MS = 1000;
const TENTHS = Array.from({ length: 10 }, (_, place) => [place / 10, (place + 1) / 10]);

export async function mount(root, context) {
  const { announce, element, percent, signal, t } = context;
  const view = new View(root, context);
  let streaming = new AbortController();
  let paused = false;
  let lost = false;
  // the page's clock may be another one than the service's: only what has passed since counts
  let told = { at: 0, here: 0 };

  const pause = element("button", { type: "button", id: "pause", onclick: () => {
    paused = !paused;
    pause.textContent = t(paused ? "resume" : "pause");
    pause.setAttribute("aria-pressed", String(paused));
    announce(t(paused ? "announce_paused" : "announce_running"));
    if (paused) streaming.abort();
    else listen();
    view.state(paused ? "paused" : "connecting");
  } }, t("pause"));
  view.controls.prepend(pause);
  view.onList = (name) => {
    context.setParams({ list: name === "recent" ? null : name });
    view.list?.clear();
    view.announced = false;
    if (!paused) listen();
  };

  function listen() {
    streaming.abort();
    streaming = new AbortController();
    const own = streaming.signal;
    context.stream(`/v1/insight/live?list=${encodeURIComponent(view.chosen)}`, (event) => {
      if (own.aborted) return;
      if (event.type === "open") {
        view.state("connecting");
        return;
      }
      if (event.type === "closed") {
        if (!lost) announce(t("announce_lost"));
        lost = true;
        const status = event.error?.status ?? 500;
        view.state(status < 500 && status !== 429 ? "refused" : "lost", event.error);
        return;
      }
      if (lost) announce(t("announce_back"));
      lost = false;
      view.state("running");
      if (event.type === "totals") view.totals(event.data);
      else if (event.type === "health") {
        told = { at: event.data.at_ms, here: performance.now() };
        view.health(event.data);
      } else if (event.type === "rows") view.rows(event.data);
    }, own);
  }

  const now = () => told.at + (performance.now() - told.here);
  const ticking = setInterval(() => { if (!paused && told.at) view.list?.tick(now()); }, TICK_MS);
  const end = () => { clearInterval(ticking); streaming.abort(); };
  signal.addEventListener("abort", end, { once: true });
  view.percent = percent;
  view.state("connecting");
  listen();
  return end;
}

/** The nodes, made when there is something to put into them and changed in place afterwards. */
class View {
  constructor(root, context) {
    this.context = context;
    const { element, t, params } = context;
    this.chosen = params.get("list") ?? "recent";
    this.tiles = new Map();
    this.root = root;
    this.stateNode = element("span", { class: "state", "data-state": "connecting" });
    this.asOf = element("span", { class: "quiet" });
    this.controls = element("div", { class: "controls" }, this.stateNode, this.asOf);
    this.notes = element("div");
    this.running = element("dl", { class: "tiles", "aria-label": t("sessions") });
    this.service = element("dl", { class: "tiles", "aria-label": t("service") });
    this.pictures = element("div");
    this.listed = element("section", { class: "panel" });
    this.models = element("section", { class: "panel" });
    this.window = element("p", { class: "note" });
    root.append(element("p", { class: "quiet" }, t("about")), this.controls, this.notes,
      element("h3", {}, t("sessions")), this.running, this.pictures, this.listed,
      element("h3", {}, t("service")), this.service, this.window, this.models);
    this.listed.hidden = this.models.hidden = true;
  }

  state(name, error) {
    const { t, failure } = this.context;
    if (this.stateNode.dataset.state === name && !error) return;
    this.stateNode.dataset.state = name;
    this.stateNode.textContent = t({ paused: "paused", running: "running", lost: "lost", refused: "refused", connecting: "connecting" }[name]);
    if (error && error.status) this.note("failure", failure(error));
    else if (name === "running") this.note("failure", null);
  }

  /** One note of a kind, or none. */
  note(kind, node) {
    const before = this.notes.querySelector(`[data-note="${kind}"]`);
    if (!node) {
      before?.remove();
      return;
    }
    if (before && before.textContent === node.textContent) return;
    node.dataset.note = kind;
    if (before) before.replaceWith(node);
    else this.notes.append(node);
  }

  tile(place, name, value, text, state = "", label = this.context.t(`tile_${name}`)) {
    const { element } = this.context;
    if (!this.tiles.has(name)) {
      const made = { label: element("dt", {}), value: element("dd", { "data-tile": name }) };
      this.tiles.set(name, made);
      place.append(element("div", { class: "tile" }, made.label, made.value));
    }
    const tile = this.tiles.get(name);
    if (tile.label.textContent !== label) tile.label.textContent = label;
    tile.value.dataset.value = value ?? "";
    tile.value.className = state;
    if (tile.value.textContent !== text) tile.value.textContent = text;
  }

  totals(totals) {
    const { element, empty, number, percent, t, time } = this.context;
    this.root.dataset.at = totals?.at_ms ?? "";
    const nobody = !totals || totals.live === 0;
    this.pictures.hidden = nobody;
    if (nobody) this.listed.hidden = true;
    this.note("nobody", totals && nobody ? empty(t("nobody"), t("nobody_hint")) : null);
    if (!totals) {
      for (const name of ["live", "here", "silent", "experiments"]) this.tile(this.running, name, null, "–");
      return;
    }
    this.asOf.textContent = t("as_of", { time: time(totals.at_ms) });
    this.note("part", totals.looked_at < totals.live
      ? element("p", { class: "note" }, t("part", { live: number(totals.live), looked: number(totals.looked_at) })) : null);
    const { counts, edges_seconds: edges } = totals.idle;
    const upTo = (seconds) => counts.slice(0, edges.indexOf(seconds) + 1).reduce((sum, count) => sum + count, 0);
    const here = upTo(10);
    const silent = totals.looked_at - upTo(60);
    this.tile(this.running, "live", totals.live, number(totals.live));
    this.tile(this.running, "here", here, number(here));
    this.tile(this.running, "silent", silent, number(silent));
    this.tile(this.running, "experiments", totals.in_experiments, number(totals.in_experiments));
    for (const [head, scores] of Object.entries(totals.scores)) {
      this.tile(this.running, `mean_${head}`, scores.mean, percent(scores.mean), "", `${headName(this.context, head)}, ${t("score_mean", { mean: "" }).trim()}`);
    }
    if (!nobody) this.draw(totals);
  }

  draw(totals) {
    const { element, percent, t } = this.context;
    const heads = Object.keys(totals.scores);
    if (!this.drawn) {
      const labels = TENTHS.map(([from, to]) => t("bar_range", { from: percent(from, 0), to: percent(to, 0) }));
      this.drawn = {
        heads: heads.map((head, place) => bars(this.context, labels, t("score_bars", { head: headName(this.context, head) }), `--series-${(place % 6) + 1}`)),
        means: heads.map(() => element("span", {})),
        age: bars(this.context, ranges(this.context, totals.age.edges_seconds), t("ages"), "--series-4"),
        idle: bars(this.context, ranges(this.context, totals.idle.edges_seconds), t("silences"), "--series-6"),
      };
      const one = (title, node, beside = null) => element("div", {}, element("h4", {}, title, beside), node);
      this.pictures.append(
        element("section", { class: "panel" }, element("h3", {}, t("scores")), element("div", { class: "histograms" },
          heads.map((head, place) => one(headName(this.context, head), this.drawn.heads[place].node, this.drawn.means[place])))),
        element("section", { class: "panel" }, element("div", { class: "histograms" },
          one(t("ages"), this.drawn.age.node), one(t("silences"), this.drawn.idle.node))));
    }
    heads.forEach((head, place) => {
      this.drawn.heads[place]?.update(totals.scores[head].counts);
      const mean = t("score_mean", { mean: percent(totals.scores[head].mean) });
      const node = this.drawn.means[place];
      if (node && node.textContent !== mean) node.textContent = mean;
    });
    this.drawn.age.update(totals.age.counts);
    this.drawn.idle.update(totals.idle.counts);
    if (!this.list) this.makeList(heads);
  }

  makeList(heads) {
    const { element, t } = this.context;
    const lists = ["recent", "idle", ...heads];
    const name = (each) => (each === "recent" || each === "idle" ? t(`list_${each}`) : t("list_head", { head: headName(this.context, each) }));
    const choose = element("select", { id: "choose-list", onchange: (event) => {
      this.chosen = event.target.value;
      this.onList(this.chosen);
    } }, lists.map((each) => element("option", { value: each, selected: each === this.chosen }, name(each))));
    this.list = sessionList(this.context, heads, this.context.number(this.mostRows));
    this.listed.append(element("h3", {}, t("list")),
      element("div", { class: "controls" }, element("label", {}, t("list_choose"), choose)), this.list.node);
    if (this.early) this.rows(this.early);
  }

  rows(rows) {
    const { announce, t } = this.context;
    if (rows.list !== this.chosen) return;
    if (!this.list) {
      this.early = rows; // the heads are not known yet
      return;
    }
    const count = this.list.update(rows);
    this.listed.dataset.at = rows.at_ms;
    this.listed.hidden = count === 0;
    if (!this.announced) announce(t("announce_list", { count }));
    this.announced = true;
  }

  health(health) {
    const { element, number, seconds, t, time } = this.context;
    this.root.dataset.health = health.at_ms;
    this.mostRows = health.most_rows;
    const { store } = health;
    this.note("store", !store.shown ? element("p", { class: "panel note" }, t("memory"))
      : !store.reachable ? element("p", { class: "panel failure", role: "alert" }, t("store_away")) : null);
    if (!store.reachable) this.totals(null);
    const ms = (x) => (x === null || x === undefined ? "–" : t("ms", { number: number(x, x < 10 ? 2 : 0) }));
    const window = seconds(Math.round(health.window_seconds ?? 0));
    const place = this.service;
    this.tile(place, "events", health.events_per_second, number(health.events_per_second, 1));
    this.tile(place, "requests", health.requests_per_second, number(health.requests_per_second, 1));
    this.tile(place, "p50", health.p50_ms, ms(health.p50_ms));
    this.tile(place, "p99", health.p99_ms, ms(health.p99_ms));
    this.tile(place, "store", store.kind, `${store.kind}: ${t(store.reachable ? "store_up" : "store_down")}`, store.reachable ? "good" : "bad");
    this.tile(place, "errors", health.errors_in_window, number(health.errors_in_window), health.errors_in_window ? "bad" : "", t("tile_errors", { seconds: window }));
    this.tile(place, "buffered", health.buffered, number(health.buffered), health.buffered ? "warn" : "");
    this.tile(place, "records", health.records, number(health.records));
    this.tile(place, "connections", health.connections, number(health.connections));
    this.tile(place, "workers", health.workers, number(health.workers));
    const since = health.registry_unreachable_since_ms;
    const registry = since ? t("registry_down", { time: time(since) }) : t(health.registry ? "registry_up" : "registry_none");
    this.tile(place, "registry", since, registry, since ? "warn" : "");
    this.window.textContent = health.window_seconds ? t("window", { seconds: window }) : "";
    this.drawModels(health);
  }

  drawModels({ models = [], reasons }) {
    const { element, seconds, table, t } = this.context;
    const lines = [
      ...models.filter((one) => !(one.head in reasons)).map((one) => ({ ...one, state: t("state_scores"), kind: "good" })),
      ...Object.entries(reasons).map(([head, reason]) => ({ head, version: "–", age_seconds: null, state: this.reason(reason), kind: "warn" })),
    ];
    // ages grow by themselves: drawn again where something else has changed, and once a minute
    const mark = JSON.stringify(lines.map((one) => ({ ...one, age_seconds: Math.floor((one.age_seconds ?? 0) / 60) })));
    if (mark === this.modelsMark) return;
    this.modelsMark = mark;
    this.models.hidden = false;
    this.models.replaceChildren(element("h3", {}, t("models")), lines.length ? table([
      { label: t("column_head"), header: true, value: (one) => headName(this.context, one.head) },
      { label: t("column_version"), value: (one) => element("span", { "data-model": one.head, "data-value": one.version }, one.version) },
      { label: t("column_age"), align: "right", value: (one) => seconds(one.age_seconds), raw: (one) => one.age_seconds },
      { label: t("column_state"), value: (one) => element("span", { class: one.kind }, one.state) },
    ], lines, t("models_caption")) : element("p", { class: "note" }, t("no_models")));
  }

  reason(reason) {
    const known = ["no_model", "feature_digest_mismatch", "model_unusable", "registry_unreachable", "scores_missing"];
    return known.includes(reason) ? this.context.t(`reason_${reason}`) : reason;
  }
}
