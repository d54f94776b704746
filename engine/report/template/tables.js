// Tables: all figures, to be sorted and filtered; the runs; kinds of error.
"use strict";

const GROUPS = ["accuracy", "areas", "files", "seeds", "cost", "end_to_end", "model", "memory", "training"];
const FIRST_GROUPS = ["accuracy", "cost", "end_to_end"];

function sortedBy(columns) {
  const column = columns.find((c) => c.key === state.sort);
  const order = CONTENT.candidates.map((candidate, index) => ({ candidate, index }));
  if (state.sort === "name") order.sort((a, b) => a.candidate.name.localeCompare(b.candidate.name));
  else if (column)
    order.sort((a, b) => {
      const [x, y] = [cell(a.candidate, column.key)[1], cell(b.candidate, column.key)[1]];
      // what is not known stands last, whichever way it is sorted
      if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
      return (state.descending ? y - x : x - y) || a.index - b.index;
    });
  if (state.sort === "name" && state.descending) order.reverse();
  return order;
}

function sortHead(key, title, unit, better, more) {
  const active = state.sort === key,
    direction = active ? (state.descending ? "descending" : "ascending") : "none";
  const flip = () => {
    remember(
      active ? { descending: !state.descending } : { sort: key, descending: better !== "low" && key !== "name" },
    );
    document.getElementById("table").querySelector("[data-live]").redraw();
  };
  return el(
    "th",
    { scope: "col", "aria-sort": direction, "data-key": key, ...more },
    el(
      "button",
      { type: "button", onclick: flip, title: text("sort") },
      title,
      unit ? el("span", { class: "unit" }, " " + unit) : null,
      el("span", { class: "arrow", "aria-hidden": "true" }, active ? (state.descending ? " ↓" : " ↑") : ""),
    ),
  );
}

// A whole number of many digits, in threes that are set apart; what is copied is the number as it is.
function grouped(written) {
  if (!/^\d{5,}$/.test(written)) return written;
  const first = written.length % 3 || 3;
  return [
    written.slice(0, first),
    ...written
      .slice(first)
      .match(/\d{3}/g)
      .map((part) => el("span", { class: "thousand" }, part)),
  ];
}

// A square for each run; what is known of them all is told at once.
function seedsPart(candidate) {
  const lines = candidate.runs.flatMap((run) => {
    const figure = run.figure || text("status." + run.status);
    const name = run.seed === null ? text("runs") : text("seed") + " " + run.seed;
    return [[name, figure], ...(run.message ? [["", run.message]] : [])];
  });
  const squares = candidate.runs.map((run) => el("span", { class: "seed " + run.status }));
  return squares.length ? hoverable(el("span", { class: "seeds" }, squares), candidate.name, lines) : null;
}

function tableSection() {
  const main = CONTENT.columns.filter((column) => !column.of && column.group !== "errors");
  const groups = GROUPS.filter((group) => main.some((column) => column.group === group));
  if (state.sort === null) remember({ sort: CONTENT.settings.metric, descending: true });
  const part = live(
    () => {
      const on = state.groups || FIRST_GROUPS;
      const columns = main.filter((column) => on.includes(column.group));
      const bestOf = new Map(
        columns.map((column) => {
          const values = CONTENT.candidates.map((c) => cell(c, column.key)[1]).filter((v) => v !== null);
          return [
            column.key,
            column.better === "low" ? Math.min(...values) : column.better === "high" ? Math.max(...values) : NaN,
          ];
        }),
      );
      const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = sortedBy(main).filter(
        ({ candidate }) =>
          (!state.frontOnly || candidate.front) && words.every((word) => candidate.name.toLowerCase().includes(word)),
      );
      const starts = new Set(groups.map((group) => (columns.find((column) => column.group === group) || {}).key));
      const over = el(
        "tr",
        {},
        el("th", { class: "over", scope: "col" }, el("span", { class: "unseen" }, text("candidate"))),
        el("td", {}),
        groups
          .filter((group) => on.includes(group))
          .map((group) =>
            el(
              "th",
              { class: "over", scope: "colgroup", colspan: columns.filter((c) => c.group === group).length },
              text("group." + group),
            ),
          ),
      );
      const head = el(
        "tr",
        {},
        sortHead("name", text("candidate"), "", "low"),
        el("th", { scope: "col", class: "left" }, el("span", { class: "between" }, text("runs"))),
        columns.map((column) =>
          sortHead(column.key, columnTitle(column), column.unit, column.better, {
            class: starts.has(column.key) ? "starts" : null,
          }),
        ),
      );
      const figure = (candidate, column) => {
        const [written, value, why] = cell(candidate, column.key);
        const bounds = (column.bounds || []).map((key) => cell(candidate, key)[0]),
          p90 = column.p90 ? cell(candidate, column.p90)[0] : "";
        const best = value !== null && value === bestOf.get(column.key) && CONTENT.candidates.length > 1;
        return el(
          "td",
          {
            class: [starts.has(column.key) ? "starts" : "", best ? "best" : ""].join(" ").trim() || null,
            "data-column": column.key,
            title: why || null,
          },
          written ? grouped(written) : el("span", { class: "unit" }, "–"),
          bounds[0] ? el("span", { class: "between" }, `${bounds[0]} – ${bounds[1]}`) : null,
          p90 ? el("span", { class: "between" }, "p90 " + p90) : null,
        );
      };
      const body = rows.map(({ candidate, index }) =>
        el(
          "tr",
          { class: CONTENT.pick && CONTENT.pick.best === index ? "picked" : null },
          el(
            "th",
            { scope: "row" },
            named(candidate.name),
            candidate.message ? el("div", { class: "status why" }, candidate.message) : null,
          ),
          el("td", { class: "left" }, seedsPart(candidate)),
          columns.map((column) => figure(candidate, column)),
        ),
      );
      return [
        el(
          "div",
          { class: "controls" },
          el(
            "label",
            { class: "search" },
            text("filter"),
            el("input", {
              type: "search",
              value: state.filter,
              oninput: (event) => {
                remember({ filter: event.target.value });
                part.redraw();
              },
            }),
          ),
          CONTENT.candidates.some((c) => c.front)
            ? check(text("frontOnly"), state.frontOnly, (value) => {
                remember({ frontOnly: value });
                part.redraw();
              })
            : null,
          el("span", { class: "unit" }, text("shown", { n: rows.length, all: CONTENT.candidates.length })),
          el(
            "div",
            { class: "group", role: "group", "aria-label": text("columns") },
            groups.map((group) =>
              el(
                "button",
                {
                  type: "button",
                  "aria-pressed": String(on.includes(group)),
                  onclick: () => {
                    remember({ groups: on.includes(group) ? on.filter((other) => other !== group) : [...on, group] });
                    part.redraw();
                  },
                },
                text("group." + group),
              ),
            ),
          ),
        ),
        el(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": text("title.table") },
          el("table", { class: "figures" }, el("thead", {}, over, head), el("tbody", {}, body)),
        ),
      ];
    },
    { "data-live": true },
  );
  part.redraw();
  return section("table", el("p", { class: "note" }, text("note.table")), part);
}

function runsSection() {
  const runs = CONTENT.candidates.flatMap((candidate) => candidate.runs.map((run) => ({ candidate, run })));
  if (!CONTENT.settings.epochs || runs.every(({ run }) => run.status === "done")) return null;
  const rows = runs.map(({ candidate, run }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, named(candidate.name)),
      el("td", {}, run.seed === null ? "–" : run.seed),
      el(
        "td",
        { class: "left" },
        el("span", { class: "status" }, el("span", { class: "seed " + run.status }), text("status." + run.status)),
      ),
      el("td", {}, `${run.epochs} / ${CONTENT.settings.epochs}`),
      el("td", {}, run.seconds === null ? "–" : duration(run.seconds)),
      el("td", {}, run.curve.length ? run.curve[run.curve.length - 1][3].toFixed(4) : "–"),
      el("td", { class: "left wide why" }, run.message),
    ),
  );
  const heads = ["candidate", "seed", "status", "curves.epoch", "curves.seconds", "soFar", "message"];
  return section(
    "runs",
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "figures" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            heads.map((key) =>
              el(
                "th",
                { scope: "col", class: ["status", "message"].includes(key) ? "left" : null },
                el("span", { class: "between" }, text(key)),
              ),
            ),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
  );
}

function errorsSection() {
  const kinds = CONTENT.columns.filter((column) => column.group === "errors");
  if (!kinds.length) return null;
  const most = Math.max(...kinds.flatMap((kind) => CONTENT.candidates.map((c) => cell(c, kind.key)[1] || 0))) || 1;
  const bar = (value) =>
    svg(
      "svg",
      { class: "cellbar", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { fill: "var(--faint)", d: "M0,0H100V7H0z" }),
      svg("path", { fill: "var(--accent)", d: `M0,0H${((100 * Math.max(0, value)) / most).toFixed(1)}V7H0z` }),
    );
  const rows = CONTENT.candidates
    .filter((c) => kinds.some((kind) => cell(c, kind.key)[0]))
    .map((candidate) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, named(candidate.name)),
        kinds.map((kind) => {
          const [written, value] = cell(candidate, kind.key);
          return el("td", { "data-column": kind.key }, written || "–", value === null ? null : bar(value));
        }),
      ),
    );
  const title = (kind) => text("error." + kind.words.kind.toLowerCase()) || kind.words.kind;
  return section(
    "errors",
    el("p", { class: "note" }, text("note.errors")),
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "figures kinds" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { scope: "col" }, el("span", { class: "unseen" }, text("candidate"))),
            kinds.map((kind) => el("th", { scope: "col" }, el("span", { class: "between" }, title(kind)))),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
  );
}
