// The first look at a head: is the champion well, and which one is it?

export function tiles(one, { t, context, element, figure, number, percent, verb, interval }) {
  const { realised, drift, test } = one;
  const error = realised ? 1.96 * realised.ratio_error : null;
  const lift = (realised?.ages ?? []).find((line) => line.age === "events")?.metrics?.lift_10;
  const tested = (test?.ages ?? []).find((line) => line.age === "events")?.metrics?.lift_10;
  const drifted = drift ? drift.features.filter((feature) => feature.counts && feature.drifted).length : null;
  const ratioOff = realised && Math.abs(realised.ratio - 1) >= realised.ratio_alarm;
  const calibrationOff = realised && realised.calibration_alarm !== null && realised.calibration >= realised.calibration_alarm;
  const colour = { well: "good", alarm: "bad", unknown: "warn" }[one.state];

  const tile = (name, value, more, state = "") => element("div", { class: "tile", "data-tile": name },
    element("dt", {}, t(`tile.${name}`)), element("dd", { class: state || null }, value),
    more ? element("dd", { class: "models-more" }, more) : null);

  return element("div", {},
    one.question ? element("p", { class: "note" }, t("models.question"), " ", element("q", { lang: "en" }, one.question)) : null,
    element("dl", { class: "tiles" },
      tile("state", figure(one.state, t(`state.${one.state}`)), one.why ? t(`why.${one.why}`) : lastLook(drift, t, context), colour),
      tile("champion", one.champion ? figure(one.champion, t("models.version", { n: one.champion })) : "–",
        one.champion_since_ms ? t("tile.champion.since", { day: context.time(one.champion_since_ms), by: verb(one.champion_by) }) : null),
      tile("challenger", one.challenger ? figure(one.challenger, t("models.version", { n: one.challenger })) : t("models.nobody")),
      tile("ratio", realised ? figure(realised.ratio, number(realised.ratio, 2)) : "–",
        realised ? `± ${number(error, 2)} · ${t("tile.alarm_off", { off: number(realised.ratio_alarm, 2) })}` : t("tile.unknown"),
        ratioOff ? "bad" : ""),
      tile("calibration", realised ? figure(realised.calibration, number(realised.calibration, 4)) : "–",
        realised ? [t("tile.by_chance", { ece: number(realised.calibration_noise, 4) }),
          realised.calibration_alarm === null ? null : ` · ${t("tile.alarm_from", { at: number(realised.calibration_alarm, 4) })}`] : t("tile.unknown"),
        calibrationOff ? "bad" : ""),
      tile("lift", lift ? figure(lift.value, number(lift.value, 2)) : tested ? figure(tested.value, number(tested.value, 2)) : "–",
        lift ? interval(lift.low, lift.high, (x) => number(x, 2)) : tested ? t("tile.lift.test") : null),
      tile("drift", drift ? figure(drifted, number(drifted)) : "–",
        drift ? t("tile.drift.score", { psi: number(drift.score.psi, 3), alarm: number(drift.score.psi_alarm, 3) }) : t("tile.unknown"),
        drifted || drift?.score.drifted ? "bad" : ""),
      tile("sessions", realised ? figure(realised.sessions, number(realised.sessions)) : "–",
        realised ? t("tile.sessions.rows", { rows: number(realised.rows), rate: percent(realised.mean_answer, 1) }) : null),
    ));
}

function lastLook(drift, t, context) {
  return drift ? t("tile.last_look", { time: context.time(drift.at_ms) }) : null;
}
