// Elements, texts in the reader's language, what is remembered over a reload, and the box that follows the pointer.
// Nothing becomes markup: texts go in by textContent, attributes by setAttribute.
"use strict";

const CONTENT = JSON.parse(document.getElementById("content").textContent);
const TEXTS = JSON.parse(document.getElementById("texts").textContent);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(9)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function el(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

// A name that somebody chose: shown in its own direction, whatever marks it holds.
function named(text) {
  return el("bdi", { title: text }, text);
}

// A browser may keep nothing for a local file: then a page that is loaded anew is as it was at first.
function stored(key) {
  try {
    return sessionStorage.getItem(`${location.pathname} ${key}`);
  } catch {
    return null;
  }
}

function store(key, value) {
  try {
    sessionStorage.setItem(`${location.pathname} ${key}`, value);
  } catch {
    /* nothing is kept */
  }
}

// What the reader has chosen.
const state = (() => {
  const kept = {
    language: "",
    theme: "",
    sort: null,
    descending: true,
    filter: "",
    groups: null,
    frontOnly: false,
    x: null,
    y: null,
    log: null,
    hidden: [],
    curve: "map50_95",
    over: "epoch",
    reference: null,
    confidence: CONTENT.confidence,
  };
  return Object.assign(kept, JSON.parse(stored("state") || "{}"));
})();

function remember(changes) {
  store("state", JSON.stringify(Object.assign(state, changes)));
}

function language() {
  return state.language || ((navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
}

// The text of a key in the reader's language, with {names} filled in; null where there is none.
function text(key, values) {
  const found = TEXTS[key];
  if (!found) return null;
  return found[language()].replace(/\{(\w+)\}/g, (whole, name) =>
    values && name in values ? String(values[name]) : whole,
  );
}

// The same as pieces to put into an element: names among the values become elements.
function pieces(key, values) {
  return TEXTS[key][language()].split(/(\{\w+\})/).map((part) => {
    const name = /^\{(\w+)\}$/.exec(part);
    return name ? values[name[1]] : part;
  });
}

function columnTitle(column) {
  return text("column." + column.kind, column.words) || column.key;
}

function cell(candidate, key) {
  return candidate.cells[key] || ["", null];
}

// Seconds as one reads them: 45 s, 12 min, 3 h 20 min.
function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

const tip = {
  node: document.getElementById("tip"),
  show(at, title, lines) {
    this.node.replaceChildren(
      el("b", {}, title),
      ...lines.map(([name, value]) => el("div", {}, el("span", {}, name), el("span", {}, value))),
    );
    this.node.hidden = false;
    const place = at.getBoundingClientRect(),
      own = this.node.getBoundingClientRect(),
      edge = document.documentElement.clientWidth - 8;
    const left = Math.max(8, Math.min(place.left + place.width / 2 - own.width / 2, edge - own.width));
    const above = place.top - own.height - 10;
    this.node.style.left = left + scrollX + "px";
    this.node.style.top = (above > 4 ? above : place.bottom + 10) + scrollY + "px";
  },
  hide() {
    this.node.hidden = true;
  },
};

// An element that shows figures on hover and on focus.
function hoverable(node, title, lines) {
  const show = () => tip.show(node, title, lines);
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) node.addEventListener(event, () => tip.hide());
  node.setAttribute("tabindex", "0");
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", [title, ...lines.map((pair) => pair.join(" "))].join(", "));
  return node;
}

function select(label, options, value, change) {
  const chosen = el(
    "select",
    { onchange: (event) => change(event.target.value) },
    options.map(([key, title]) => el("option", { value: key, selected: key === value }, title)),
  );
  return el("label", {}, label, chosen);
}

function check(label, value, change) {
  return el(
    "label",
    {},
    el("input", { type: "checkbox", checked: value, onchange: (event) => change(event.target.checked) }),
    label,
  );
}

// Buttons of which one is down.
function choice(label, options, value, change) {
  return el(
    "div",
    { class: "group", role: "group", "aria-label": label },
    options.map(([key, title, lang]) =>
      el(
        "button",
        { type: "button", lang, "aria-pressed": String(key === value), "data-key": key, onclick: () => change(key) },
        title,
      ),
    ),
  );
}

function section(id, ...children) {
  return el(
    "section",
    { id, "aria-labelledby": id + "-title" },
    el("h2", { id: id + "-title" }, text("title." + id)),
    children,
  );
}

// A part of a section that draws itself anew when something in it changes; the focus stays where it was.
function live(draw, attributes) {
  const node = el("div", attributes || {});
  node.redraw = () => {
    const all = (root) => [...root.querySelectorAll("button, select, input")];
    const at = all(node).indexOf(document.activeElement);
    const caret = at >= 0 ? document.activeElement.selectionStart : null;
    tip.hide();
    node.replaceChildren(...[draw(node)].flat(9).filter((child) => child !== null));
    if (at >= 0 && all(node)[at]) {
      all(node)[at].focus({ preventScroll: true });
      if (typeof caret === "number" && all(node)[at].type === "search") all(node)[at].setSelectionRange(caret, caret);
    }
  };
  return node;
}
