// Labelled fields of a form, each with a place for what is wrong with it, and lists of such lines that grow and shrink.

/** A field: its control, and where a problem with it is told. */
export class Field {
  constructor(context, { label, control, hint = "", name }) {
    const { element, uniqueId } = context;
    this.control = control;
    this.name = name;
    control.id = uniqueId("field");
    control.dataset.field = name;
    this.problem = element("span", { class: "experiments-wrong", id: `${control.id}-problem`, hidden: true });
    const note = hint ? element("span", { class: "note", id: `${control.id}-hint` }, hint) : null;
    this.described = note ? note.id : "";
    if (note) control.setAttribute("aria-describedby", note.id);
    this.node = element("div", { class: "field", "data-of": name }, element("label", { for: control.id }, label), control, note, this.problem);
  }

  get value() {
    return this.control.type === "checkbox" ? this.control.checked : this.control.value.trim();
  }

  /** Tell what is wrong, as often as something is. */
  wrong(text) {
    this.problem.textContent = this.problem.hidden ? text : `${this.problem.textContent} ${text}`;
    this.problem.hidden = false;
    this.control.setAttribute("aria-invalid", "true");
    this.control.setAttribute("aria-describedby", `${this.problem.id} ${this.described}`.trim());
  }

  clear() {
    this.problem.hidden = true;
    this.control.removeAttribute("aria-invalid");
    if (this.described) this.control.setAttribute("aria-describedby", this.described);
    else this.control.removeAttribute("aria-describedby");
  }
}

export function textField(context, options, value = "") {
  const { kind = "text", list, multiline, placeholder, ...rest } = options;
  const { element } = context;
  const control = multiline
    ? element("textarea", { rows: 2, placeholder })
    : element("input", { type: "text", inputmode: kind === "number" ? "decimal" : null, list, placeholder, autocomplete: "off", spellcheck: "false" });
  control.value = value;
  return new Field(context, { ...rest, control });
}

export function choiceField(context, options, choices, value) {
  const control = context.element("select", {}, choices.map(([each, text]) => context.element("option", { value: each, selected: each === value }, text)));
  return new Field(context, { ...options, control });
}

export function switchField(context, options, value) {
  const control = context.element("input", { type: "checkbox", checked: value });
  const field = new Field(context, { ...options, control });
  field.node.classList.add("experiments-switch");
  return field;
}

/** Lines of fields; `fieldsOf(value)` makes those of one, by name. */
export class Lines {
  constructor(context, { name, what, add, least = 0, most = Infinity, fieldsOf, changed = () => {} }, values) {
    const { element } = context;
    Object.assign(this, { context, name, what, least, most, fieldsOf, changed, lines: [] });
    this.list = element("ol", { class: "experiments-rows", "data-of": name });
    this.adding = element("button", { type: "button", onclick: () => this.add().focus() }, add);
    this.node = element("div", {}, this.list, this.adding);
    for (const value of values) this.add(value);
    this.number();
  }

  /** One more line; returns its first control. */
  add(value = {}) {
    const { element } = this.context;
    const fields = this.fieldsOf(value);
    const remove = element("button", { type: "button", class: "experiments-remove" }, "✕");
    const line = { fields, remove, node: element("li", { class: "experiments-row" }, Object.values(fields).map((field) => field.node), remove) };
    remove.addEventListener("click", () => {
      this.lines = this.lines.filter((one) => one !== line);
      line.node.remove();
      this.number();
      this.changed();
      this.adding.focus();
    });
    this.lines.push(line);
    this.list.append(line.node);
    this.number();
    this.changed();
    return Object.values(fields)[0].control;
  }

  number() {
    this.lines.forEach(({ remove }, place) => {
      remove.setAttribute("aria-label", this.context.t("removeRow", { what: this.what, number: place + 1 }));
      remove.disabled = this.lines.length <= this.least;
    });
    this.adding.disabled = this.lines.length >= this.most;
  }

  get fields() {
    return this.lines.map((line) => line.fields);
  }

  clear() {
    for (const fields of this.fields) for (const field of Object.values(fields)) field.clear();
  }
}
