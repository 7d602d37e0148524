// Changes of the configuration: tried first, confirmed by a person, pushed only if nobody else has changed it meanwhile.

import { problemsIn } from "./experiments_data.js";

const EXPERIMENTS = "/v1/experiments";

/** What would change, by section; throws what the service refuses. */
export function tried(desk, patch) {
  return send(desk, "PATCH", `${EXPERIMENTS}?dry_run=true`, patch);
}

/** Pushed; throws what the service refuses. */
export function pushed(desk, patch) {
  return send(desk, "PATCH", EXPERIMENTS, patch);
}

/** An earlier version again, or only tried. */
export function rolledBack(desk, version, dryRun) {
  return send(desk, "POST", `${EXPERIMENTS}/rollback?version=${encodeURIComponent(version)}&dry_run=${dryRun}`);
}

function send(desk, method, path, body) {
  return desk.context.api(path, { method, headers: { "If-Match": `"${desk.version}"` }, body });
}

/** What a refusal means to the one who pushed, as a node; after a conflict what is there now is loaded. */
export async function refusal(desk, error) {
  const { element, t } = desk.context;
  const told = (...children) => element("div", { class: "experiments-problem", role: "alert" }, children);
  if (error.status === 412) {
    await desk.load(error.problem.version); // the worker that answers next may not know it yet
    return told(element("p", {}, t("conflict", { version: desk.version })));
  }
  if (error.status === 401 || error.status === 403) {
    desk.readOnly = true;
    return told(element("p", {}, t("forbidden")));
  }
  if (error.status === 422) {
    const lines = problemsIn(error.detail).map(({ place, text }) => element("li", {}, place ? [element("code", {}, place), " "] : null, text));
    return told(element("p", {}, t("refused")), element("ul", {}, lines));
  }
  return told(element("p", {}, `${error.title || error.name}: ${error.detail || error.message}`));
}

/** The changes that a push makes, by section, as a node. */
export function changesNode(desk, changes) {
  const { element, t } = desk.context;
  const lines = Object.entries(changes).flatMap(([section, kinds]) => Object.entries(kinds)
    .filter(([, keys]) => keys.length)
    .map(([kind, keys]) => element("li", {}, `${t(kind)}: ${section} `, element("code", {}, keys.join(", ")))));
  return lines.length ? element("ul", { class: "experiments-changes" }, lines) : element("p", {}, t("noChanges"));
}

/**
 * A dialog that says what happens, tries it at once and shows what it changes. Resolves to the answer of the service,
 * null where the person thought better of it.
 *
 * attempt: asks the service to try; act: to do; both throw what is refused. more: choices, after each of which it is tried anew.
 */
export function confirmed(desk, { title, what, action, more = [], danger = false, attempt, act }) {
  const { element, t, uniqueId } = desk.context;
  const heading = element("h3", { id: uniqueId("confirm") }, title);
  const outcome = element("div", { "aria-live": "polite", class: "experiments-outcome" }, element("p", { class: "note" }, t("trying")));
  const cancel = element("button", { type: "button", id: "experiments-cancel" }, t("cancel"));
  const go = element("button", { type: "button", id: "experiments-go", class: danger ? "danger" : "primary" }, action);
  const dialog = element("dialog", { class: "experiments-dialog", "aria-labelledby": heading.id },
    heading, what.map((line) => element("p", {}, line)), more, outcome, element("div", { class: "controls" }, cancel, go));
  const opener = document.activeElement;
  return new Promise((resolve) => {
    let answer = null;
    const asking = async (ask, then) => {
      go.disabled = true;
      try {
        then(await ask());
        go.disabled = false;
      } catch (error) {
        outcome.replaceChildren(await refusal(desk, error));
        // after a conflict what runs now was loaded; a disk may have room again
        go.disabled = error.status !== 412 && error.status !== 503;
      }
    };
    const trying = () => asking(attempt, ({ changes }) => outcome.replaceChildren(changesNode(desk, changes)));
    cancel.addEventListener("click", () => dialog.close());
    go.addEventListener("click", () => asking(act, (done) => {
      answer = done;
      dialog.close();
    }));
    for (const choice of more) choice.addEventListener("change", trying);
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
      resolve(answer);
    });
    desk.root.append(dialog);
    dialog.showModal();
    cancel.focus();
    trying();
  });
}
