// The form of an experiment: its fields, filled with what a configuration says.

import { conditionOf, linesOf, OPERATORS, ruleOf, shown, typed } from "./experiments_data.js";
import { choiceField, Lines, switchField, textField } from "./experiments_fields.js";

const ALLOCATIONS = ["fixed", "thompson", "contextual"];
const SCORES = ["bounce", "conversion", "exit"];
const COLUMNS = ["purchases", "revenue", "events", "cart_adds", "page_views", "sign_ups"];
const OWN = ["events", "idle_seconds", "consent", "session", "visitor"];
const MOST_GOALS = 4;
const NEW = {
  definition: { arms: ["control", "variant"], goals: [{ name: "purchase", column: "purchases", primary: true }] },
  rule: { variations: [false, true], condition: { bounce: { $gt: 0.7 }, events: { $lt: 3 } } },
};

export class Form {
  /** key: of the experiment that is edited, empty for a new one. */
  constructor(desk, key) {
    this.desk = desk;
    this.edited = key;
    const found = key ? ruleOf(desk.configuration, key) : null;
    this.old = key ? desk.configuration.experiments[key] : NEW.definition;
    const rule = found?.rule ?? (key ? { variations: this.old.arms } : NEW.rule);
    const feature = found?.feature ?? "";
    this.single = {};
    this.node = desk.context.element("div", { class: "experiments-form" },
      this.general(), this.flag(feature), this.arms(rule), this.whom(rule), this.goals(), this.guardrails(), this.allocation(), this.judging());
  }

  // fields

  text(name, label, value = "", options = {}) {
    this.single[name] = textField(this.desk.context, { name, label, ...options }, value);
    return this.single[name].node;
  }

  box(legend, hint, ...children) {
    const { element } = this.desk.context;
    return element("fieldset", { class: "panel" }, element("legend", {}, legend), hint ? element("p", { class: "note" }, hint) : null, children);
  }

  general() {
    const { t, element } = this.desk.context;
    const { old, edited } = this;
    const key = this.text("key", t("key"), edited, { hint: t("keyHint") });
    this.single.key.control.readOnly = Boolean(edited);
    const started = edited && (old.status ?? "running") !== "draft";
    this.single.unit = choiceField(this.desk.context, { name: "unit", label: t("unit") }, [["session", t("session")], ["visitor", t("visitor")]], old.unit ?? "session");
    return this.box(t("general"), started ? t("editRunning") : "",
      element("div", { class: "experiments-grid" }, key, this.text("name", t("name"), old.name ?? ""), this.single.unit.node,
        started ? this.text("phase", t("phase"), String(old.phase ?? 1), { kind: "number" }) : null),
      this.text("hypothesis", t("hypothesis"), old.hypothesis ?? "", { hint: t("hypothesisHint"), multiline: true }));
  }

  flag(feature) {
    const { t, element, uniqueId } = this.desk.context;
    const features = this.desk.configuration.features ?? {};
    const list = uniqueId("features");
    const node = this.text("feature", t("feature"), feature, { hint: t("featureHint"), list });
    this.text("default", t("defaultValue"), feature ? shown(features[feature].defaultValue) : "false", { hint: t("valueHint") });
    this.single.feature.control.addEventListener("change", () => {
      const there = features[this.single.feature.value];
      if (there) this.single.default.control.value = shown(there.defaultValue);
    });
    return this.box(t("feature"), "", element("div", { class: "experiments-grid" }, node, this.single.default.node,
      element("datalist", { id: list }, Object.keys(features).map((each) => element("option", { value: each })))));
  }

  arms(rule) {
    const { context } = this.desk;
    const { t, element } = context;
    const { old } = this;
    const rows = (old.arms ?? []).map((name, place) => ({ name, share: old.shares?.[place], value: shown(rule.variations[place]) }));
    this.armLines = new Lines(context, {
      name: "arms", what: t("arm"), add: t("addArm"), least: 2,
      fieldsOf: ({ name = "", share, value = "" }) => ({
        name: textField(context, { name: "arms", label: t("name") }, name),
        share: textField(context, { name: "shares", label: t("sharePercent"), kind: "number" }, inPercent(share)),
        value: textField(context, { name: "variations", label: t("value") }, value),
      }),
    }, rows);
    return this.box(t("arms"), `${t("armsHint")} ${t("valueHint")}`, this.armLines.node, element("div", { class: "experiments-grid" },
      this.text("holdback", t("holdbackPercent"), inPercent(old.holdback), { kind: "number", hint: t("holdbackHint") }),
      this.text("minimum_share", t("minimumPercent"), inPercent(old.minimum_share), { kind: "number" })));
  }

  whom(rule) {
    const { context } = this.desk;
    const { t, element, uniqueId } = context;
    this.names = element("datalist", { id: uniqueId("names") });
    const rows = linesOf(rule.condition);
    this.conditionLines = new Lines(context, {
      name: "condition", what: t("condition"), add: t("addLine"),
      fieldsOf: ({ name = "", operator = "$gt", value }) => ({
        name: textField(context, { name: "condition", label: t("attribute"), list: this.names.id }, name),
        operator: choiceField(context, { name: "operator", label: t("operator") }, Object.entries(OPERATORS), operator),
        value: textField(context, { name: "asked", label: t("asked") }, shown(value)),
      }),
    }, rows ?? []);
    this.single.json = textField(context, { name: "json", label: t("condition"), hint: rows === null ? t("asJsonHint") : "", multiline: true }, JSON.stringify(rule.condition ?? {}));
    this.single.asJson = switchField(context, { name: "asJson", label: t("asJson") }, rows === null);
    const show = () => {
      this.conditionLines.node.hidden = this.single.asJson.value;
      this.single.json.node.hidden = !this.single.asJson.value;
    };
    this.single.asJson.control.addEventListener("change", () => {
      if (this.single.asJson.value) this.single.json.control.value = JSON.stringify(this.asked() ?? {});
      show();
    });
    show();
    const span = rule.namespace ?? [];
    return this.box(t("whom"), t("conditionHint"), this.names, this.conditionLines.node, this.single.json.node, this.single.asJson.node,
      element("div", { class: "experiments-grid" },
        this.text("namespace", t("namespace"), span[0] ?? "", { hint: t("namespaceHint") }),
        this.text("from", t("partFrom"), span.length ? String(span[1]) : "", { kind: "number" }),
        this.text("to", t("partTo"), span.length ? String(span[2]) : "", { kind: "number" })));
  }

  goals() {
    const { context } = this.desk;
    const { t, element, uniqueId } = context;
    const columns = element("datalist", { id: uniqueId("columns") }, COLUMNS.map((each) => element("option", { value: each })));
    this.goalLines = new Lines(context, {
      name: "goals", what: t("goal"), add: t("addGoal"), least: 1, most: MOST_GOALS,
      fieldsOf: (goal) => ({
        name: textField(context, { name: "name", label: t("name") }, goal.name ?? ""),
        kind: choiceField(context, { name: "kind", label: t("kind") }, ["binary", "numeric", "revenue"].map((each) => [each, t(each)]), goal.kind ?? "binary"),
        column: textField(context, { name: "column", label: t("column"), list: columns.id }, goal.column ?? goal.name ?? ""),
        better: choiceField(context, { name: "better", label: t("better") }, ["higher", "lower"].map((each) => [each, t(each)]), goal.better ?? "higher"),
        primary: switchField(context, { name: "primary", label: t("primary") }, goal.primary ?? false),
      }),
    }, this.old.goals ?? []);
    return this.box(t("goals"), `${t("goalsHint")} ${t("columnHint")}`, columns, this.goalLines.node);
  }

  guardrails() {
    const { context } = this.desk;
    const { t, element, uniqueId } = context;
    const names = element("datalist", { id: uniqueId("goals") });
    names.append(...(this.old.goals ?? []).map((goal) => element("option", { value: goal.name })));
    this.goalLines.list.addEventListener("change", () => {
      names.replaceChildren(...this.goalLines.fields.map((fields) => element("option", { value: fields.name.value })));
    });
    this.railLines = new Lines(context, {
      name: "guardrails", what: t("guardrails"), add: t("addGuardrail"),
      fieldsOf: ({ goal = "", worst = -0.05 }) => ({
        goal: textField(context, { name: "goal", label: t("goal"), list: names.id }, goal),
        worst: textField(context, { name: "worst", label: t("worstPercent"), kind: "number" }, inPercent(-worst)),
      }),
    }, this.old.guardrails ?? []);
    return this.box(t("guardrails"), t("guardrailsHint"), names, this.railLines.node);
  }

  allocation() {
    const { context } = this.desk;
    const { t, element } = context;
    const told = this.old.allocation ?? {};
    const name = told.name ?? "fixed";
    const choices = ALLOCATIONS.map((each) => [each, t(`allocation.${each}`)]);
    if (!ALLOCATIONS.includes(name)) choices.push([name, name]);
    this.single.allocation = choiceField(context, { name: "allocation", label: t("allocationName") }, choices, name);
    this.single.score = choiceField(context, { name: "score", label: t("score") }, SCORES.map((each) => [each, each]), told.score ?? "conversion");
    this.text("edges", t("edges"), (told.edges ?? []).join(" "), { hint: t("edgesHint") });
    const others = Object.entries(told).filter(([option]) => !["name", "score", "edges"].includes(option));
    this.text("options", t("options"), others.length ? JSON.stringify(Object.fromEntries(others)) : "", { hint: t("optionsHint") });
    const show = () => {
      for (const each of ["score", "edges"]) this.single[each].node.hidden = this.single.allocation.value !== "contextual";
    };
    this.single.allocation.control.addEventListener("change", show);
    show();
    return this.box(t("allocation"), "", element("div", { class: "experiments-grid" },
      this.single.allocation.node, this.single.score.node, this.single.edges.node, this.single.options.node));
  }

  judging() {
    const { t, element } = this.desk.context;
    return this.box(t("judging"), "", element("div", { class: "experiments-grid" },
      this.text("planned_units", t("planned"), String(this.old.planned_units ?? ""), { kind: "number", hint: t("plannedHint"), placeholder: "10000" }),
      this.text("alpha", t("alphaPercent"), inPercent(this.old.alpha), { kind: "number", placeholder: "5" })));
  }

  /** Names that conditions may ask for. */
  know(names) {
    const { element } = this.desk.context;
    const all = new Set([...names, ...OWN, ...(this.desk.configuration.attributes ?? [])]);
    this.names.replaceChildren(...[...all].map((name) => element("option", { value: name })));
  }

  get key() {
    return this.single.key.value;
  }

  // what is typed

  /** A number; undefined where none is typed. */
  decimal(field) {
    if (!field.value) return undefined;
    const found = Number(field.value.replace(",", "."));
    if (Number.isNaN(found)) this.mark(field, this.desk.context.t("notNumber"));
    return found;
  }

  /** A share that is typed in percent. */
  part(field) {
    const found = this.decimal(field);
    return found === undefined ? undefined : Number((found / 100).toFixed(12));
  }

  needed(field) {
    if (!field.value) this.mark(field, this.desk.context.t("needed"));
    return field.value;
  }

  /** What the lines of the condition ask for; null where two of them contradict each other. */
  asked() {
    const fields = this.conditionLines.fields;
    const value = (field) => typed(this.needed(field).replace(/^(-?\d+),(\d+)$/, "$1.$2"));
    const condition = conditionOf(fields.map((line) => ({ name: this.needed(line.name), operator: line.operator.value, value: value(line.value) })));
    if (condition === null) this.mark(fields.at(-1).name, this.desk.context.t("twice"));
    return condition;
  }

  mark(field, text) {
    this.marked = true;
    if (field.problem.hidden) field.wrong(text);
  }

  clear() {
    this.marked = false;
    for (const field of Object.values(this.single)) field.clear();
    for (const lines of [this.armLines, this.conditionLines, this.goalLines, this.railLines]) lines.clear();
  }
}

/** A share in percent, as it is typed. */
function inPercent(share) {
  return share === undefined || share === null ? "" : String(Number((share * 100).toFixed(10)));
}
