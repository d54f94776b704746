// The parts of the page that are no charts over axes: progress, the pick, tables, pictures, commands.
"use strict";

function progressPart() {
  const { done, total, share, left } = CONTENT.progress;
  if (CONTENT.stage === "finished") return null;
  return el("div", { class: "progress" },
    el("p", {}, el("strong", {}, text("stage." + CONTENT.stage)), " ", total ? text("progress.done", { done, total }) : null,
      !left ? null : " " + text("progress.left", { left: duration(left) })),
    el("progress", { max: 1, value: share, "aria-label": text("progress.label") }),
    el("p", { class: "note" }, text("progress.reload", { seconds: CONTENT.reload })));
}

function factsPart() {
  const { data, settings } = CONTENT;
  const facts = [
    ["data", data.file && named(data.file)], ["classes", CONTENT.classes.length || null], ["train_images", data.train_images], ["val_images", data.val_images],
    ["imgsz", data.imgsz], ["epochs", settings.epochs], ["seeds", settings.seeds.join(", ")], ["batch_size", settings.batch_size],
    ["metric", text("column." + settings.metric)],
  ].filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return el("dl", { class: "facts" }, facts.map(([key, value]) => el("div", {}, el("dt", {}, text("fact." + key)), el("dd", {}, value))));
}

// The pick ---------------------------------------------------------------------------------------------------------------

function pairOf(first, second) {
  return CONTENT.pairs.find((pair) => pair.first === first && pair.second === second);
}

function differenceWords(pair) {
  const { difference, low, high } = pair.cells;
  return low[0] ? text("pair.between", { difference: difference[0], low: low[0], high: high[0] }) : difference[0];
}

function seedsWords(pair) {
  if (pair.seeds_more === null) return pair.cells.p_holm[0] ? text("pair.images") : "";
  return text(["pair.none", "pair.seed"][pair.seeds_more] || "pair.seeds", { n: pair.seeds_more });
}

function excessWords([kind, figure, unit, most]) {
  const what = kind === "end_to_end" ? text("group.end_to_end") : text("column." + kind);
  return text("pick.excess", { what, figure: unit ? figure + " " + unit : figure, most });
}

function pickSection() {
  const pick = CONTENT.pick;
  if (!pick) return null;
  const metric = text("column." + CONTENT.settings.metric), lines = [];
  const limits = pick.constraints.map(([flag, most], i) => [i ? " " : "", el("span", { class: "mono" }, `${flag} ${most}`)]);
  const nameOf = (i) => el("strong", {}, named(CONTENT.candidates[i].name));
  let open = true;
  const fit = CONTENT.candidates.filter((candidate, i) => !pick.left_out.some(([out]) => out === i));
  const unnamed = fit.length === 0 ? "pick.none" : fit.every((candidate) => cell(candidate, CONTENT.settings.metric)[1] === null) ? "pick.unmeasured" : "pick.unnamed";
  if (pick.best === null) lines.push(el("p", { class: "lead" }, text(unnamed)));
  else {
    const pair = pick.second === null ? null : pairOf(pick.best, pick.second);
    const figure = cell(CONTENT.candidates[pick.best], CONTENT.settings.metric)[0];
    const values = { best: nameOf(pick.best), second: pick.second === null ? "" : nameOf(pick.second), metric, figure };
    const kind = pick.second === null ? "alone" : pair ? pair.verdict : "too_few_seeds";
    open = kind !== "first" && kind !== "alone";
    lines.push(el("p", { class: "lead" }, pieces("pick." + kind, values)));
    if (pair) lines.push(el("p", {}, text("pick.difference", { metric, difference: differenceWords(pair) }), " ", kind === "no_difference" ? seedsWords(pair) : ""));
    const rivals = CONTENT.candidates.map((candidate, i) => i).filter((i) => {
      const other = i !== pick.best && i !== pick.second && !pick.left_out.some(([out]) => out === i) && pairOf(pick.best, i);
      return other && other.verdict === "no_difference";
    });
    if (rivals.length) lines.push(el("p", {}, pieces("pick.rivals", { names: rivals.map((i, n) => [n ? text("comma") : "", named(CONTENT.candidates[i].name)]) })));
  }
  if (limits.length) lines.push(el("p", { class: "note" }, text("pick.limits"), " ", limits));
  if (pick.left_out.length) lines.push(el("p", { class: "note" }, text("pick.left_out"), " ",
    pick.left_out.map(([i, why, excess], n) => [n ? text("semicolon") : "", named(CONTENT.candidates[i].name), text("bracket", { why: excess ? excessWords(excess) : why })])));
  return section("pick", el("div", { class: open ? "pick open" : "pick" }, lines));
}

// Tables -----------------------------------------------------------------------------------------------------------------

const GROUPS = ["accuracy", "areas", "files", "seeds", "cost", "end_to_end", "model", "memory", "training"];
const FIRST_GROUPS = ["accuracy", "cost", "end_to_end"];

function sortedBy(columns) {
  const column = columns.find((c) => c.key === state.sort);
  const order = CONTENT.candidates.map((candidate, index) => ({ candidate, index }));
  if (state.sort === "name") order.sort((a, b) => a.candidate.name.localeCompare(b.candidate.name));
  else if (column) order.sort((a, b) => {
    const [x, y] = [cell(a.candidate, column.key)[1], cell(b.candidate, column.key)[1]];
    // what is not known stands last, whichever way it is sorted
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
    return (state.descending ? y - x : x - y) || a.index - b.index;
  });
  if (state.sort === "name" && state.descending) order.reverse();
  return order;
}

function sortHead(key, title, unit, better, more) {
  const active = state.sort === key, direction = active ? (state.descending ? "descending" : "ascending") : "none";
  const flip = () => {
    remember(active ? { descending: !state.descending } : { sort: key, descending: better !== "low" && key !== "name" });
    document.getElementById("table").querySelector("[data-live]").redraw();
  };
  return el("th", { scope: "col", "aria-sort": direction, "data-key": key, ...more },
    el("button", { type: "button", onclick: flip, title: text("sort") }, title, unit ? el("span", { class: "unit" }, " " + unit) : null,
      el("span", { class: "arrow", "aria-hidden": "true" }, active ? (state.descending ? " ↓" : " ↑") : "")));
}

// A whole number of many digits, in threes that are set apart; what is copied is the number as it is.
function grouped(written) {
  if (!/^\d{5,}$/.test(written)) return written;
  const first = written.length % 3 || 3;
  return [written.slice(0, first), ...written.slice(first).match(/\d{3}/g).map((part) => el("span", { class: "thousand" }, part))];
}

function seedsPart(candidate) {
  return el("span", { class: "seeds" }, candidate.runs.map((run) => hoverable(el("span", { class: "seed " + run.status }), candidate.name,
    [[text("seed"), run.seed === null ? "–" : run.seed], [text("status"), text("status." + run.status)],
      ...(run.epochs ? [[text("curves.epoch"), `${run.epochs} / ${CONTENT.settings.epochs}`]] : []),
      ...CONTENT.metrics.filter((m) => run.cells[m][0]).map((m) => [text("column." + m), run.cells[m][0]]), ...(run.message ? [["", run.message]] : [])])));
}

function tableSection() {
  const main = CONTENT.columns.filter((column) => !column.of && column.group !== "errors");
  const groups = GROUPS.filter((group) => main.some((column) => column.group === group));
  if (state.sort === null) remember({ sort: CONTENT.settings.metric, descending: true });
  const part = live(() => {
    const on = state.groups || FIRST_GROUPS;
    const columns = main.filter((column) => on.includes(column.group));
    const bestOf = new Map(columns.map((column) => {
      const values = CONTENT.candidates.map((c) => cell(c, column.key)[1]).filter((v) => v !== null);
      return [column.key, column.better === "low" ? Math.min(...values) : column.better === "high" ? Math.max(...values) : NaN];
    }));
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = sortedBy(main).filter(({ candidate }) => (!state.frontOnly || candidate.front) && words.every((word) => candidate.name.toLowerCase().includes(word)));
    const starts = new Set(groups.map((group) => (columns.find((column) => column.group === group) || {}).key));
    const over = el("tr", {}, el("th", { class: "over", scope: "col" }, el("span", { class: "unseen" }, text("candidate"))), el("td", {}),
      groups.filter((group) => on.includes(group)).map((group) => el("th", { class: "over", scope: "colgroup", colspan: columns.filter((c) => c.group === group).length }, text("group." + group))));
    const head = el("tr", {}, sortHead("name", text("candidate"), "", "low"), el("th", { scope: "col", class: "left" }, el("span", { class: "between" }, text("runs"))),
      columns.map((column) => sortHead(column.key, columnTitle(column), column.unit, column.better, { class: starts.has(column.key) ? "starts" : null })));
    const figure = (candidate, column) => {
      const [written, value, why] = cell(candidate, column.key);
      const bounds = (column.bounds || []).map((key) => cell(candidate, key)[0]), p90 = column.p90 ? cell(candidate, column.p90)[0] : "";
      const best = value !== null && value === bestOf.get(column.key) && CONTENT.candidates.length > 1;
      return el("td", { class: [starts.has(column.key) ? "starts" : "", best ? "best" : ""].join(" ").trim() || null, "data-column": column.key, title: why || null },
        written ? grouped(written) : el("span", { class: "unit" }, "–"), bounds[0] ? el("span", { class: "between" }, `${bounds[0]} – ${bounds[1]}`) : null,
        p90 ? el("span", { class: "between" }, "p90 " + p90) : null);
    };
    const body = rows.map(({ candidate, index }) => el("tr", { class: CONTENT.pick && CONTENT.pick.best === index ? "picked" : null },
      el("th", { scope: "row" }, named(candidate.name), candidate.message ? el("div", { class: "status why" }, candidate.message) : null),
      el("td", { class: "left" }, seedsPart(candidate)), columns.map((column) => figure(candidate, column))));
    return [
      el("div", { class: "controls" },
        el("label", { class: "search" }, text("filter"), el("input", { type: "search", value: state.filter, oninput: (event) => { remember({ filter: event.target.value }); part.redraw(); } })),
        CONTENT.candidates.some((c) => c.front) ? check(text("frontOnly"), state.frontOnly, (value) => { remember({ frontOnly: value }); part.redraw(); }) : null,
        el("div", { class: "group", role: "group", "aria-label": text("columns") }, groups.map((group) =>
          el("button", { type: "button", "aria-pressed": String(on.includes(group)), onclick: () => {
            remember({ groups: on.includes(group) ? on.filter((other) => other !== group) : [...on, group] });
            part.redraw();
          } }, text("group." + group)))),
        el("span", { class: "unit", "data-count": rows.length }, text("shown", { n: rows.length, all: CONTENT.candidates.length }))),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": text("title.table") }, el("table", { class: "figures" }, el("thead", {}, over, head), el("tbody", {}, body))),
    ];
  }, { "data-live": true });
  part.redraw();
  return section("table", el("p", { class: "note" }, text("note.table")), part);
}

function runsSection() {
  const runs = CONTENT.candidates.flatMap((candidate) => candidate.runs.map((run) => ({ candidate, run })));
  if (!CONTENT.settings.epochs || runs.every(({ run }) => run.status === "done")) return null;
  const rows = runs.map(({ candidate, run }) => el("tr", {},
    el("th", { scope: "row" }, named(candidate.name)), el("td", {}, run.seed === null ? "–" : run.seed),
    el("td", { class: "left" }, el("span", { class: "status" }, el("span", { class: "seed " + run.status }), text("status." + run.status))),
    el("td", {}, `${run.epochs} / ${CONTENT.settings.epochs}`), el("td", {}, run.seconds === null ? "–" : duration(run.seconds)),
    el("td", {}, run.curve.length ? run.curve[run.curve.length - 1][3].toFixed(4) : "–"),
    el("td", { class: "left wide why" }, run.message)));
  const heads = ["candidate", "seed", "status", "curves.epoch", "curves.seconds", "soFar", "message"];
  return section("runs", el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, heads.map((key) => el("th", { scope: "col", class: ["status", "message"].includes(key) ? "left" : null }, el("span", { class: "between" }, text(key)))))), el("tbody", {}, rows))));
}

function errorsSection() {
  const kinds = CONTENT.columns.filter((column) => column.group === "errors");
  if (!kinds.length) return null;
  const most = Math.max(...kinds.flatMap((kind) => CONTENT.candidates.map((c) => cell(c, kind.key)[1] || 0))) || 1;
  const bar = (value) => svg("svg", { class: "cellbar", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { fill: "var(--faint)", d: "M0,0H100V7H0z" }), svg("path", { fill: "var(--accent)", d: `M0,0H${((100 * Math.max(0, value)) / most).toFixed(1)}V7H0z` }));
  const rows = CONTENT.candidates.filter((c) => kinds.some((kind) => cell(c, kind.key)[0])).map((candidate) => el("tr", {}, el("th", { scope: "row" }, named(candidate.name)),
    kinds.map((kind) => { const [written, value] = cell(candidate, kind.key); return el("td", { "data-column": kind.key }, written || "–", value === null ? null : bar(value)); })));
  const title = (kind) => text("error." + kind.words.kind.toLowerCase()) || kind.words.kind;
  return section("errors", el("p", { class: "note" }, text("note.errors")), el("div", { class: "scroll" }, el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "unseen" }, text("candidate"))), kinds.map((kind) => el("th", { scope: "col" }, el("span", { class: "between" }, title(kind)))))),
    el("tbody", {}, rows))));
}

// What one candidate has more than another, as a line about zero.
function pairsSection() {
  if (!CONTENT.pairs.length) return null;
  const metric = CONTENT.settings.metric;
  const mean = (i) => cell(CONTENT.candidates[i], metric)[1] ?? -1;
  const best = CONTENT.candidates.map((c, i) => i).sort((a, b) => mean(b) - mean(a))[0];
  const part = live(() => {
    const found = CONTENT.candidates.findIndex((candidate) => candidate.name === state.reference);
    const reference = found >= 0 ? found : CONTENT.pick && CONTENT.pick.best !== null ? CONTENT.pick.best : best;
    const pairs = CONTENT.pairs.filter((pair) => pair.second === reference).sort((a, b) => b.cells.difference[1] - a.cells.difference[1]);
    const ends = pairs.flatMap((pair) => [pair.cells.low, pair.cells.high, pair.cells.difference].map((c) => c[1])).filter((v) => v !== null);
    const most = Math.max(...ends.map(Math.abs), 1e-4) * 1.08, x = (v) => 50 + (v / most) * 46 + "%";
    const marks = ticks(-most, most, innerWidth < 700 ? 2 : 4);
    const draw = (pair) => {
      const { difference, low, high } = pair.cells, index = pair.first;
      const line = (from, to, y1, y2) => svg("line", { x1: x(from), x2: x(to), y1, y2, stroke: color(index), "stroke-width": 2 });
      return svg("svg", { class: "flow", "aria-hidden": "true" },
        marks.values.map((v) => svg("line", { class: Math.abs(v) < 1e-12 ? "axis" : "grid", x1: x(v), x2: x(v), y1: -9, y2: 31 })),
        low[1] === null ? null : [line(low[1], high[1], 11, 11), line(low[1], low[1], 7, 15), line(high[1], high[1], 7, 15)],
        svg("svg", { x: x(difference[1]), y: 11 }, marker(index, 0, 0, 5, {})));
    };
    const verdict = (pair) => {
      const words = text("verdict." + pair.verdict, { reference: CONTENT.candidates[reference].name });
      const more = pair.verdict === "no_difference" ? seedsWords(pair) : "";
      return el("td", { class: "left wide verdict " + ({ first: "better", second: "worse" }[pair.verdict] || "") }, words, more ? el("span", { class: "between" }, more) : null);
    };
    const scale = svg("svg", { class: "flow", "aria-hidden": "true" },
      marks.values.map((v) => svg("text", { class: "tick", x: x(v), y: 16, "text-anchor": "middle" }, (v > 1e-12 ? "+" : "") + v.toFixed(marks.digits))));
    const rows = pairs.map((pair) => el("tr", {}, el("th", { scope: "row" }, named(CONTENT.candidates[pair.first].name)), el("td", { class: "draw" }, draw(pair)),
      el("td", { "data-pair": pair.first }, pair.cells.difference[0], pair.cells.low[0] ? el("span", { class: "between" }, `${pair.cells.low[0]} ${text("to")} ${pair.cells.high[0]}`) : null),
      el("td", {}, pair.cells.p_holm[0] || "–"), verdict(pair)));
    const head = (key, name) => el("th", { scope: "col", class: name }, el("span", { class: "between" }, text(key)));
    return [
      el("div", { class: "controls" }, select(text("pair.reference"), CONTENT.candidates.map((c) => [c.name, c.name]), CONTENT.candidates[reference].name, (name) => { remember({ reference: name }); part.redraw(); })),
      el("div", { class: "scroll" }, el("table", { class: "figures forest" },
        el("thead", {}, el("tr", {}, head("candidate"), el("th", { class: "left draw", scope: "col" }, el("span", { class: "unseen" }, text("pair.picture")), scale), head("pair.difference"), head("pair.p"), head("pair.verdict", "left"))), el("tbody", {}, rows))),
    ];
  });
  part.redraw();
  return section("pairs", el("p", { class: "note" }, text("note.pairs", { metric: text("column." + metric) })), part);
}

// Pictures ---------------------------------------------------------------------------------------------------------------

function viewOf(picture, boxes, large) {
  const size = Math.max(picture.width, picture.height) / (large ? 34 : 20);
  const sure = boxes.filter((box) => box[4] >= state.confidence).sort((a, b) => a[4] - b[4]);
  const tint = (box) => CONTENT.colors[box[5] % CONTENT.colors.length];
  return svg("svg", { viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" },
    svg("image", { href: "data:image/jpeg;base64," + picture.jpeg, width: picture.width, height: picture.height, preserveAspectRatio: "none" }),
    sure.map((box) => svg("rect", { class: "box", x: box[0], y: box[1], width: Math.max(0, box[2] - box[0]), height: Math.max(0, box[3] - box[1]), stroke: tint(box) })),
    large ? sure.map((box) => svg("text", { x: box[0], y: box[1] > size * 1.2 ? box[1] - size * 0.3 : box[1] + size, "font-size": size, direction: "ltr", "unicode-bidi": "isolate" },
      classOf(box) + (box[4] < 1 ? " " + box[4].toFixed(2) : ""))) : null);
}

function classOf(box) {
  return CONTENT.classes[box[5]] ?? String(box[5]);
}

// What is labelled, and what each candidate has found, in the order of the page.
function viewsOf(picture) {
  const found = CONTENT.candidates.map((candidate, i) => [candidate.name, picture.boxes[i], i]).filter(([, boxes]) => boxes !== null);
  return [[text("labels"), picture.labels, null], ...found];
}

function enlarge(picture, at) {
  const views = viewsOf(picture), dialog = el("dialog", { "aria-label": picture.file });
  const draw = () => dialog.replaceChildren(
    el("div", { class: "controls" }, el("strong", {}, named(views[at][0])),
      el("span", {}, el("button", { type: "button", onclick: () => step(-1), "aria-label": text("previous") }, "←"), " ", el("button", { type: "button", onclick: () => step(1), "aria-label": text("next") }, "→"), " ",
        el("button", { type: "button", onclick: () => dialog.close() }, text("close")))),
    viewOf(picture, views[at][1], true));
  const step = (by) => { at = (at + by + views.length) % views.length; draw(); dialog.querySelectorAll("button")[by > 0 ? 1 : 0].focus(); };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => dialog.remove());
  draw();
  document.body.append(dialog);
  dialog.showModal();
}

function picturesSection() {
  if (!CONTENT.pictures.length) return null;
  const part = live(() => CONTENT.pictures.map((picture) => el("div", { class: "row" }, el("h3", {}, named(picture.file)),
    el("div", { class: "strip" }, viewsOf(picture).map(([name, boxes, index], at) => {
      const count = boxes.filter((box) => box[4] >= state.confidence).length;
      return el("figure", {}, el("button", { type: "button", class: "view", "aria-label": text("enlarge", { name, n: count }), onclick: () => enlarge(picture, at) }, viewOf(picture, boxes, false)),
        el("figcaption", { class: index === null ? "unit" : null }, named(name)));
    })))));
  const value = el("output", {}, state.confidence.toFixed(2));
  const slider = el("input", { type: "range", min: CONTENT.confidence, max: 0.95, step: 0.05, value: state.confidence, oninput: (event) => {
    remember({ confidence: Number(event.target.value) });
    value.textContent = state.confidence.toFixed(2);
    part.redraw();
  } });
  part.redraw();
  const used = new Set(CONTENT.pictures.flatMap((p) => [p.labels, ...p.boxes.filter(Boolean)].flat().map((box) => box[5])));
  const key = el("div", { class: "legend" }, [...used].sort((a, b) => a - b).slice(0, 24).map((c) => el("span", { class: "status" },
    svg("svg", { class: "key", viewBox: "0 0 16 12", "aria-hidden": "true" }, svg("rect", { x: 2, y: 1, width: 12, height: 10, fill: "none", "stroke-width": 2, stroke: CONTENT.colors[c % CONTENT.colors.length] })),
    named(CONTENT.classes[c] ?? String(c)))));
  return section("pictures", el("p", { class: "note" }, text("note.pictures")), el("div", { class: "controls" }, el("label", {}, text("confidence"), slider, value), key), part);
}

// Machine and commands ---------------------------------------------------------------------------------------------------

function machineSection() {
  const { machine, settings } = CONTENT;
  const versions = [["Python", machine.python], ["PyTorch", machine.torch], ["torchvision", machine.torchvision], ["OpenCV", machine.opencv], ...Object.entries(machine.runtimes)];
  const entries = [["machine", machine.name], ["device", machine.device], ["cores", machine.cores], ["threads", machine.threads], ["os", machine.os],
    ["versions", versions.filter(([, version]) => version).map((pair) => pair.join(" ")).join(", ")], ["noise", machine.noise], ["train", settings.train]];
  const known = entries.filter(([, value]) => value !== null && value !== "" && value !== undefined);
  if (!known.length) return null;
  return section("machine", el("dl", { class: "pairs" }, known.map(([key, value]) => [el("dt", {}, text("machine." + key)), el("dd", { class: key === "train" ? "mono" : null }, String(value))])));
}

async function copy(words) {
  try { await navigator.clipboard.writeText(words); } catch {
    // a page from a file may not have the clipboard: the older way
    const area = el("textarea", { class: "unseen" });
    area.value = words;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

// Letters that hide or turn round what stands beside them, written out; what is copied is the command as it is.
function visible(words) {
  return words.replace(/[\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u0000-\u0009\u000b-\u001f\u007f-\u009f]/gu, (letter) => "\\u{" + letter.codePointAt(0).toString(16) + "}");
}

function commandPart(title, lines) {
  const words = lines.join("\n");
  const button = el("button", { type: "button", "aria-label": text("copyOf", { name: title }), onclick: async () => {
    await copy(words);
    button.textContent = text("copied");
    document.getElementById("said").textContent = text("copied");
    setTimeout(() => { button.textContent = text("copy"); }, 1500);
  } }, text("copy"));
  return el("div", { class: "command" }, el("h3", {}, named(title)), el("pre", {}, visible(words)), button);
}

function commandsSection() {
  const each = CONTENT.candidates.map((c) => [c.name, c.runs.map((run) => run.command).filter(Boolean)]).filter(([, lines]) => lines.length);
  return section("commands", el("p", { class: "note" }, text("note.commands")), CONTENT.command ? commandPart(text("all"), [CONTENT.command]) : null, each.map(([name, lines]) => commandPart(name, lines)));
}
