// Model health: what training and `lotse watch` left in MLflow, head by head (GET /v1/insight/models).
// Nothing is measured here: what is shown is what the document says.

import { calibration, lift } from "./models_calibration.js";
import { drift, overTime } from "./models_drift.js";
import { parts } from "./models_parts.js";
import { reasons } from "./models_reasons.js";
import { texts } from "./models_texts.js";
import { tiles } from "./models_tiles.js";
import { comparison, versions } from "./models_versions.js";
import { whatIf } from "./models_whatif.js";

export { texts };

const SECTIONS = [calibration, lift, drift, overTime, comparison, versions, reasons, whatIf];

export async function mount(root, context) {
  const { t, element } = context;
  const note = element("p", { class: "note" }, t("models.loading"));
  root.append(element("p", { class: "note" }, t("models.about")), note);
  let found;
  try {
    found = await context.api("/v1/insight/models");
  } finally {
    note.remove();
  }
  const heads = Object.keys(found.heads).filter((head) => found.heads[head].versions.length);
  if (!heads.length) {
    root.append(context.empty(t(found.registry ? "models.none" : "models.no_registry"), t("models.none.hint")));
    return () => {};
  }
  const shown = element("div", {});
  const chips = heads.map((head) => element("button", {
    type: "button", class: "chip", "data-head": head, onclick: () => choose(head),
  }, head));
  root.append(element("div", { class: "controls", role: "group", "aria-label": t("models.head") }, chips), shown);
  let drawn = null;
  // what the address asks for, of the head that it names; another head begins anew
  const asked = Object.fromEntries(context.params);

  function choose(head, wanted = {}) {
    drawn?.remove();
    chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.head === head)));
    const one = found.heads[head];
    drawn = parts(context, found, head, wanted);
    context.setParams({ of: null, moment: null, at: null, ...wanted, head });
    shown.replaceChildren(tiles(one, drawn), ...SECTIONS.map((section) => section(one, drawn)));
  }

  if (heads.includes(asked.head)) choose(asked.head, asked);
  else choose(heads[0]);
  return () => drawn?.remove();
}
