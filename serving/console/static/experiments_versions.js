// What was pushed, by whom, and the way back.

import { confirmed, rolledBack } from "./experiments_push.js";
import { backNode, figure, heading } from "./experiments_parts.js";

export function versionsNode(desk) {
  const { element, t } = desk.context;
  const place = element("div", {}, element("p", { class: "note" }, t("frame.loading")));
  fill(desk, place);
  return element("div", {}, backNode(desk), heading(desk, t("versions")), element("p", { class: "note" }, t("versionsNote")), place);
}

async function fill(desk, place) {
  const { api, failure } = desk.context;
  try {
    const { version, versions } = await api("/v1/experiments/versions");
    place.replaceChildren(tableNode(desk, version, versions));
  } catch (error) {
    place.replaceChildren(failure(error));
  }
}

function tableNode(desk, current, versions) {
  const { element, t, table, time, empty } = desk.context;
  if (!versions.length) return empty(t("noVersions"), t("noVersionsHint"));
  const back = (one) => {
    if (one.version === current) return element("span", { class: "badge good" }, t("runs"));
    if (desk.readOnly) return "";
    return element("button", {
      type: "button", id: `experiments-back-${one.version}-${one.at}`, "aria-label": t("rollBackTitle", { version: one.version }), onclick: () => rollBack(desk, one),
    }, t("rollBack"));
  };
  return element("div", { class: "panel" }, table([
    { label: t("at"), header: true, value: (one) => figure(desk, one.at, time(one.at)) },
    { label: t("version"), value: (one) => element("code", {}, one.version) },
    { label: t("how"), value: (one) => t(one.how) },
    { label: t("by"), value: (one) => one.by || "–" },
    { label: t("actions"), value: back },
  ], versions, t("versions")));
}

async function rollBack(desk, one) {
  const { t, time } = desk.context;
  const done = await confirmed(desk, {
    title: t("rollBackTitle", { version: one.version }),
    what: [t("rollBackWhat", { time: time(one.at) })],
    action: t("rollBack"),
    danger: true,
    attempt: () => rolledBack(desk, one.version, true),
    act: () => rolledBack(desk, one.version, false),
  });
  if (done) await desk.refresh(t("done"), done.version);
}
