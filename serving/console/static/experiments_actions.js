// What can be done with an experiment that is there: start, stop, kill an arm, name a winner, each after a dialog.

import { closedArms } from "./experiments_data.js";
import { confirmed, pushed, tried } from "./experiments_push.js";

/** The buttons of an experiment, as it stands. */
export function actionsNode(desk, key, one) {
  const { element, t } = desk.context;
  const left = one.definition.arms.slice(1).filter((arm) => !closedArms(one).has(arm));
  const button = (id, text, dialog, kind = null) =>
    element("button", { type: "button", id: `experiments-${id}`, class: kind, onclick: () => act(desk, dialog(desk, key, one, left)) }, text);
  const edit = element("a", { href: `#experiments?define=${encodeURIComponent(key)}`, class: "experiments-button" }, t("edit"));
  const of = {
    draft: () => [edit, button("start", t("start"), starting, "primary")],
    running: () => [
      edit,
      left.length ? button("kill", t("kill"), killing) : null,
      button("winner", t("nameWinner"), winning),
      button("stop", t("stop"), stopping, "danger"),
    ],
    stopped: () => [button("winner", t("nameWinner"), winning), button("start", t("goOn"), goingOn)],
  };
  return element("div", { class: "controls", role: "group", "aria-label": t("actions") }, of[one.status]());
}

async function act(desk, { patch, ...dialog }) {
  const done = await confirmed(desk, { ...dialog, attempt: () => tried(desk, patch()), act: () => pushed(desk, patch()) });
  if (done) await desk.refresh(desk.context.t("done"), done.version);
  else if (desk.readOnly) desk.draw();
}

function change(key, definition) {
  return { experiments: { [key]: definition } };
}

function starting(desk, key, one) {
  const { t, percent } = desk.context;
  const { arms, shares } = one.definition;
  const parts = arms.map((arm, place) => `${arm} ${percent(shares[place], 1)}`).join(", ");
  return {
    title: t("startTitle", { name: key }),
    what: [t("startWhat", { shares: parts }), t("startThen")],
    action: t("start"),
    patch: () => change(key, { status: "running" }),
  };
}

function goingOn(desk, key) {
  const { t } = desk.context;
  return {
    title: t("goOnTitle", { name: key }),
    what: [t("goOnWhat")],
    action: t("goOn"),
    patch: () => change(key, { status: "running", winner: null }),
  };
}

function stopping(desk, key, one) {
  const { t } = desk.context;
  return {
    title: t("stopTitle", { name: key }),
    what: [t("stopWhat", { control: one.definition.arms[0] }), t("stopThen")],
    action: t("stop"),
    danger: true,
    patch: () => change(key, { status: "stopped" }),
  };
}

function killing(desk, key, one, left) {
  const { t } = desk.context;
  const { node, chosen } = choice(desk, "kill", t("whichArm"), left);
  // as it is by then: somebody else may have killed another one
  const killed = () => desk.state.experiments[key]?.definition.killed ?? [];
  return {
    title: t("killTitle", { name: key }),
    what: [t("killWhat", { control: one.definition.arms[0] }), t("killThen")],
    more: [node],
    action: t("kill"),
    danger: true,
    patch: () => change(key, { killed: [...new Set([...killed(), chosen()])] }),
  };
}

function winning(desk, key, one) {
  const { t } = desk.context;
  const { node, chosen } = choice(desk, "winner", t("whichWinner"), one.definition.arms, suggested(one));
  return {
    title: t("winnerTitle", { name: key }),
    what: [t(one.status === "running" ? "winnerStops" : "winnerWhat"), t("winnerThen")],
    more: [node],
    action: t("nameWinner"),
    patch: () => change(key, { status: "stopped", winner: chosen() }),
  };
}

/** The arm that a result says is better, for a person to agree to or not. */
function suggested(one) {
  return one.definition.winner || (one.results ?? []).find((result) => result.verdict === "better")?.arm;
}

function choice(desk, id, label, arms, first) {
  const { element } = desk.context;
  const select = element("select", { id: `experiments-${id}-arm` },
    arms.map((arm) => element("option", { value: arm, selected: arm === first }, arm)));
  const node = element("p", { class: "controls" }, element("label", { for: select.id }, label), select);
  return { node, chosen: () => select.value };
}
