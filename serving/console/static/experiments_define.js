// To define an experiment, or change one: a form, checked by the service, shown as what is sent, and pushed.

import { patchBetween, problemsIn } from "./experiments_data.js";
import { Form } from "./experiments_form.js";
import { backNode, heading } from "./experiments_parts.js";
import { showProblems } from "./experiments_problems.js";
import { changesNode, confirmed, pushed, refusal, tried } from "./experiments_push.js";
import { contentOf } from "./experiments_reading.js";

/** key: of the experiment that is changed, empty for a new one. */
export function defineNode(desk, key) {
  const { element, t, empty } = desk.context;
  const old = desk.configuration.experiments?.[key];
  if (key && !old) return element("div", {}, backNode(desk), empty(t("unknown"), t("unknownHint")));
  const form = new Form(desk, key);
  const status = old?.status ?? (old ? "running" : "draft");
  const outcome = element("div", { class: "experiments-outcome", "aria-live": "polite", id: "experiments-checked" });
  const sent = element("code", {});
  const preview = element("details", { class: "panel", id: "experiments-sent", hidden: true }, element("summary", {}, t("sent")), element("pre", { class: "scroll" }, sent));
  const flow = new Flow(desk, form, { outcome, sent, preview });
  const button = (id, text, run, kind = null) => element("button", { type: id === "check" ? "submit" : "button", id: `experiments-${id}`, class: kind, onclick: id === "check" ? null : run }, text);
  const check = () => flow.check(status);
  const buttons = [button("check", t("check"), check)];
  if (status === "draft") {
    buttons.push(button("save", t("saveDraft"), () => flow.save("draft")), button("save-start", t("saveStart"), () => flow.save("running"), "primary"));
  } else {
    buttons.push(button("save", t("save"), () => flow.save(status), "primary"));
  }
  names(desk).then((found) => form.know(found));
  return element("form", { novalidate: true, onsubmit: (event) => {
    event.preventDefault();
    check();
  } },
  backNode(desk), heading(desk, key ? t("editTitle", { name: key }) : t("defineTitle")),
  form.node, outcome, preview, element("div", { class: "controls experiments-saving" }, buttons));
}

/** Scores and features that conditions may ask for; none where the service does not tell. */
async function names(desk) {
  try {
    const { heads, features } = await desk.context.api("/v1/features");
    return [...Object.keys(heads), ...features];
  } catch {
    return [];
  }
}

class Flow {
  constructor(desk, form, places) {
    Object.assign(this, { desk, form, ...places });
  }

  /** The patch that makes the configuration what the form says; null where it cannot be read, undefined where it is so already. */
  patch(status) {
    const next = contentOf(this.form, status);
    return next === null ? null : patchBetween(this.desk.configuration, next);
  }

  /** Have the service try it; a draft as what it becomes when it is started. Returns whether it can be. */
  async check(status) {
    const patch = this.patch(status);
    if (!this.readable(patch)) return false;
    try {
      const { changes } = await tried(this.desk, this.patch(status === "draft" ? "running" : status));
      const { element, t } = this.desk.context;
      this.outcome.replaceChildren(element("p", { class: "good" }, t("checked")), element("p", {}, t("checkedChanges")), changesNode(this.desk, changes));
      return true;
    } catch (error) {
      return this.refused(error);
    }
  }

  /** Try it, ask the person, push. */
  async save(status) {
    if (!this.readable(this.patch(status))) return;
    try {
      await tried(this.desk, this.patch(status));
    } catch (error) {
      await this.refused(error);
      return;
    }
    const { t } = this.desk.context;
    this.outcome.replaceChildren();
    const started = status === "running" && (this.form.old.status === "draft" || !this.form.edited);
    const done = await confirmed(this.desk, {
      title: t("saveTitle", { name: this.form.key }),
      what: [t("saveWhat"), ...(started ? [t("saveStartWhat")] : [])],
      action: t(started ? "saveStart" : status === "draft" ? "saveDraft" : "save"),
      attempt: () => tried(this.desk, this.patch(status) ?? {}),
      act: () => pushed(this.desk, this.patch(status) ?? {}),
    });
    if (done) this.desk.go(`#experiments?experiment=${encodeURIComponent(this.form.key)}`, done.version, t("done"));
  }

  /** Show what would be sent, or what keeps it from being sent. */
  readable(patch) {
    const { element, t } = this.desk.context;
    this.preview.hidden = !patch;
    if (patch) {
      this.sent.textContent = `PATCH /v1/experiments\nIf-Match: "${this.desk.version}"\n\n${JSON.stringify(patch, null, 2)}`;
      return true;
    }
    this.outcome.replaceChildren(element("p", { class: patch === null ? "bad" : null }, t(patch === null ? "notChecked" : "nothingToSave")));
    this.form.node.querySelector("[aria-invalid]")?.focus();
    return false;
  }

  /** Show a refusal at the fields that it speaks of, and beneath the form what belongs to none. */
  async refused(error) {
    const { element, t } = this.desk.context;
    if (error.status !== 422) {
      this.outcome.replaceChildren(await refusal(this.desk, error));
      return false;
    }
    const others = showProblems(this.form, problemsIn(error.detail));
    this.outcome.replaceChildren(element("div", { class: "experiments-problem", role: "alert" },
      element("p", {}, t("notChecked")),
      element("ul", {}, problemsIn(error.detail).map(({ place, text }) =>
        element("li", {}, place ? [element("code", {}, place), " "] : null, text))),
      others.length ? element("p", { class: "note" }, `${t("elsewhere")}: ${others.map(({ place, text }) => place || text).join(", ")}`) : null));
    return false;
  }
}
