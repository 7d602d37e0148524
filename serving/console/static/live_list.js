// The list of sessions: changed in place; ages and silences go on by the page's own clock.

const POINTS = 30;
const WIDTH = 72;
const HEIGHT = 20;
// The scale of a line ends here at least, so that a score that trembles near zero does not look like a mountain.
const LEAST_SCALE = 0.1;

/** heads: names; returns {node, update(rows event), tick(now ms), clear()}. */
export function sessionList(context, heads, most) {
  const { element, t } = context;
  const columns = columnsOf(context, heads);
  const body = element("tbody");
  const sessions = new Map();
  // a place of the list keeps its nodes, whichever session is there: nothing is made or moved while numbers change
  const places = [];
  let order = [];
  let sorted = { column: null, down: true };
  const buttons = columns.map((column) => (column.sort ? element("button", { type: "button", onclick: () => {
    sorted = { column, down: sorted.column === column ? !sorted.down : true };
    arrange();
  } }, column.label) : column.label));
  const heading = columns.map((column, place) => element("th", { scope: "col", class: column.align }, buttons[place]));
  const node = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("list") },
    element("table", { class: "sessions" }, element("caption", {}, t("list_caption", { most })),
      element("colgroup", {}, columns.map((column) => element("col", { class: `col-${column.kind}` }))),
      element("thead", {}, element("tr", {}, heading)), body));

  function arrange() {
    heading.forEach((th, place) => {
      if (columns[place] === sorted.column) th.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    const shown = order.map((id) => sessions.get(id));
    if (sorted.column) {
      const by = sorted.column.sort;
      shown.sort((one, other) => ((by(other) ?? -Infinity) - (by(one) ?? -Infinity)) * (sorted.down ? 1 : -1));
    }
    shown.forEach((session, number) => fill(number, session));
    while (places.length > shown.length) places.pop().node.remove();
  }

  function fill(number, session) {
    if (number === places.length) {
      const cells = columns.map((column) => column.cell());
      places.push({ cells, node: element("tr", {}, cells), session: null, told: 0 });
      body.append(places[number].node);
    }
    const place = places[number];
    if (place.session !== session || place.told !== session.told) {
      columns.forEach((column, index) => column.fill(place.cells[index], session));
      place.node.dataset.id = session.row.id;
      place.session = session;
      place.told = session.told;
    }
    columns.forEach((column, index) => column.draw?.(place.cells[index], session));
  }

  return {
    node,
    clear() {
      sessions.clear();
      order = [];
      places.length = 0;
      body.replaceChildren();
    },
    update({ at_ms: at, order: now, rows }) {
      for (const row of rows) {
        const session = sessions.get(row.id) ?? { history: heads.map(() => []), told: 0 };
        session.row = row;
        session.at = at;
        session.told += 1;
        sessions.set(row.id, session);
      }
      order = now.filter((id) => sessions.has(id));
      const listed = new Set(order);
      for (const [id, session] of sessions) {
        if (!listed.has(id)) {
          sessions.delete(id);
          continue;
        }
        heads.forEach((head, index) => {
          const history = session.history[index];
          history.push(session.row.scores[head] ?? null);
          if (history.length > POINTS) history.shift();
        });
      }
      arrange();
      return order.length;
    },
    tick(now) {
      for (const { cells, session } of places) {
        const passed = Math.max(now - session.at, 0) / 1000;
        columns.forEach((column, index) => column.tick?.(cells[index], session, passed));
      }
    },
  };
}

function columnsOf(context, heads) {
  const { element, number, seconds, t } = context;
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  // a cell is as wide as its column: what is longer is there for who points at it
  const listed = (cell, found) => {
    const text = found.map(([key, value]) => `${key}: ${value}`).join(", ");
    put(cell, text);
    if (cell.title !== text) cell.title = text;
  };
  const time = (label, field, direction) => ({
    kind: "time", label, align: "right", sort: (session) => session.row[field] + direction * (Date.now() - session.at) / 1000,
    cell: () => element("td", { class: "right" }),
    fill: (cell, { row }) => { cell.dataset.value = row[field]; put(cell, seconds(Math.round(row[field]))); },
    tick: (cell, { row }, passed) => put(cell, seconds(Math.max(Math.round(row[field] + direction * passed), 0))),
  });
  return [
    {
      kind: "id", label: t("column_id"), cell: () => element("th", { scope: "row", class: "session-id" }),
      fill: (cell, { row }) => put(cell, row.id),
    },
    time(t("column_age"), "age_seconds", 1),
    {
      kind: "count", label: t("column_events"), align: "right", sort: ({ row }) => row.events,
      cell: () => element("td", { class: "right" }),
      fill: (cell, { row }) => { cell.dataset.value = row.events; put(cell, number(row.events)); },
    },
    {
      kind: "step", label: t("column_step"), cell: () => element("td", {}),
      fill: (cell, { row }) => { cell.dataset.step = row.step; put(cell, t(`step_${row.step}`)); },
    },
    ...heads.map((head, place) => scoreColumn(context, head, place)),
    time(t("column_idle"), "idle_seconds", 1),
    time(t("column_left"), "left_seconds", -1),
    {
      kind: "flags", label: t("column_flags"), cell: () => element("td", { class: "flags" }),
      fill: (cell, { row }) => listed(cell, Object.entries(row.flags ?? {})),
    },
    {
      kind: "arms", label: t("column_arms"), cell: () => element("td", { class: "arms" }),
      fill: (cell, { row }) => listed(cell, (row.arms ?? []).map((one) => [one.experiment, one.arm])),
    },
  ];
}

export function headName(context, head) {
  return ["bounce", "conversion", "exit"].includes(head) ? context.t(`head_${head}`) : head;
}

function scoreColumn(context, head, place) {
  const { element, percent, number, t } = context;
  const name = headName(context, head);
  // beside probabilities there are heads that say amounts and effects
  const said = (score) => (score > 1 || score < 0 ? number(score, 2) : percent(score));
  return {
    kind: "score", label: name, align: "right", sort: ({ row }) => row.scores[head],
    cell: () => element("td", { class: "score", "data-head": head }, element("svg:svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", "aria-hidden": "true",
    }, element("svg:polyline", { fill: "none", stroke: `var(--series-${(place % 6) + 1})`, "stroke-width": 1.5, points: "" })),
    element("span", {})),
    fill: (cell, { row }) => {
      const score = row.scores[head] ?? null;
      cell.dataset.value = score ?? "";
      const text = said(score);
      const node = cell.lastChild;
      if (node.textContent !== text) node.textContent = text;
      const decided = Boolean(row.decided?.includes(head));
      node.classList.toggle("decided", decided);
      if (decided) node.title = t("decided");
      else node.removeAttribute("title");
    },
    draw: (cell, session) => {
      const points = line(session.history[place]);
      const drawn = cell.firstChild.firstChild;
      if (drawn.getAttribute("points") !== points) drawn.setAttribute("points", points);
    },
  };
}

function line(history) {
  const most = history.reduce((largest, value) => Math.max(largest, value ?? 0), LEAST_SCALE);
  const step = WIDTH / (POINTS - 1);
  const from = POINTS - history.length;
  const points = [];
  history.forEach((value, place) => {
    if (value !== null) points.push(`${((from + place) * step).toFixed(1)},${(HEIGHT - 1.5 - (Math.max(value, 0) / most) * (HEIGHT - 3)).toFixed(1)}`);
  });
  return points.length === 1 ? `${points[0]} ${points[0]}` : points.join(" ");
}
