// The view "Experiments": what is defined, what runs and what came of it; to define, start, watch and stop.

import { defineNode } from "./experiments_define.js";
import { detailNode } from "./experiments_detail.js";
import { listNode } from "./experiments_list.js";
import { texts } from "./experiments_texts.js";
import { versionsNode } from "./experiments_versions.js";

export { texts };

const POLL_MS = 10_000;
const WAIT_MS = 300;
const MOST_WAITS = 10;

// whether the one who looks came here by a link of this view, whose place is gone: the focus goes on to the new heading
let followed = false;
// what was just pushed, which the worker that answers next may not know yet
let pending = "";

/** What the parts of the view share: what the service said last, and how to have it said again. */
class Desk {
  constructor(root, context) {
    this.root = root;
    this.context = context;
    this.version = "";
    this.configuration = {};
    this.state = { experiments: {}, error: "" };
    this.readOnly = false;
    this.charts = [];
    this.body = context.element("div", {});
    root.append(this.body);
    root.addEventListener("click", (event) => {
      if (event.target instanceof Element && event.target.closest("a[href^='#experiments']")) followed = true;
    });
  }

  /** The experiment that the address names, empty if it names none. */
  get named() {
    return this.context.params.get("experiment") ?? "";
  }

  /** Ask the service; expected: the version that was just pushed, which another worker may know a moment later. */
  async load(expected = "") {
    const { api } = this.context;
    for (let waits = 0; ; waits += 1) {
      const told = await api("/v1/experiments");
      const history = this.named in (told.configuration.experiments ?? {}) ? `?history=${encodeURIComponent(this.named)}` : "";
      try {
        const state = await api(`/v1/experiments/state${history}`);
        const wanted = expected || told.version;
        if (waits >= MOST_WAITS || (told.version === wanted && state.configuration === wanted)) {
          Object.assign(this, { version: told.version, configuration: told.configuration, state });
          return;
        }
      } catch (error) {
        if (error.status !== 422 || waits >= MOST_WAITS) throw error; // that worker has not followed yet
      }
      await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    }
  }

  /** Ask, and show what is new. */
  async refresh(told = "", expected = "") {
    await this.load(expected);
    this.draw();
    if (told) this.context.announce(told);
  }

  /** Show it all again, with the focus and open details where they were. */
  draw() {
    const focused = this.body.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...this.body.querySelectorAll("details[open][id]")].map((node) => node.id);
    this.release();
    this.body.replaceChildren(this.node());
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus();
    this.shown = this.signature();
  }

  /** Show another part of the view, as it is with the version that was just pushed. */
  go(hash, version, told) {
    pending = version;
    followed = true;
    location.hash = hash;
    this.context.announce(told);
  }

  node() {
    const { params } = this.context;
    if (params.has("define")) return defineNode(this, params.get("define"));
    if (params.has("versions")) return versionsNode(this);
    return this.named ? detailNode(this, this.named) : listNode(this);
  }

  /** A chart that goes when what is shown is replaced. */
  chart(node, ...rest) {
    this.charts.push(this.context.chart(node, ...rest));
  }

  release() {
    for (const chart of this.charts) chart.remove();
    this.charts = [];
  }

  /** Another text when something else is to be shown. */
  signature() {
    const { experiments, error } = this.state;
    return JSON.stringify([this.version, error, this.readOnly, experiments], (name, value) => (name === "until_ms" ? 0 : value));
  }

  /** Look again, unless somebody is typing or deciding. */
  async poll() {
    if (document.hidden || this.context.params.has("define") || document.querySelector("dialog[open]")) return;
    await this.load();
    if (this.signature() !== this.shown) this.draw();
  }
}

export async function mount(root, context) {
  const desk = new Desk(root, context);
  const expected = pending;
  pending = "";
  await desk.load(expected);
  desk.draw();
  if (followed) {
    followed = false;
    root.querySelector("h3")?.focus();
  }
  const timer = setInterval(() => {
    desk.poll().catch((error) => {
      if (context.signal.aborted) return;
      clearInterval(timer);
      desk.body.prepend(context.failure(error));
    });
  }, POLL_MS);
  return () => {
    clearInterval(timer);
    desk.release();
  };
}
