// By how much one candidate differs from others.
"use strict";

// What one candidate has more than another, as a line about zero.
function pairsSection() {
  if (!CONTENT.pairs.length) return null;
  const metric = CONTENT.settings.metric;
  const mean = (i) => cell(CONTENT.candidates[i], metric)[1] ?? -1;
  const best = CONTENT.candidates.map((c, i) => i).sort((a, b) => mean(b) - mean(a))[0];
  const part = live(() => {
    const found = CONTENT.candidates.findIndex((candidate) => candidate.name === state.reference);
    const reference = found >= 0 ? found : CONTENT.pick && CONTENT.pick.best !== null ? CONTENT.pick.best : best;
    const pairs = CONTENT.pairs
      .filter((pair) => pair.second === reference)
      .sort((a, b) => b.cells.difference[1] - a.cells.difference[1]);
    const ends = pairs
      .flatMap((pair) => [pair.cells.low, pair.cells.high, pair.cells.difference].map((c) => c[1]))
      .filter((v) => v !== null);
    const most = Math.max(...ends.map(Math.abs), 1e-4) * 1.08,
      x = (v) => 50 + (v / most) * 46 + "%";
    const marks = ticks(-most, most, innerWidth < 700 ? 2 : 4);
    const draw = (pair) => {
      const { difference, low, high } = pair.cells,
        index = pair.first;
      const line = (from, to, y1, y2) =>
        svg("line", { x1: x(from), x2: x(to), y1, y2, stroke: color(index), "stroke-width": 2 });
      return svg(
        "svg",
        { class: "flow", "aria-hidden": "true" },
        marks.values.map((v) =>
          svg("line", { class: Math.abs(v) < 1e-12 ? "axis" : "grid", x1: x(v), x2: x(v), y1: -9, y2: 31 }),
        ),
        low[1] === null
          ? null
          : [line(low[1], high[1], 11, 11), line(low[1], low[1], 7, 15), line(high[1], high[1], 7, 15)],
        svg("svg", { x: x(difference[1]), y: 11 }, marker(index, 0, 0, 5, {})),
      );
    };
    const verdict = (pair) => {
      const words = text("verdict." + pair.verdict, { reference: CONTENT.candidates[reference].name });
      const more = pair.verdict === "no_difference" ? seedsWords(pair) : "";
      return el(
        "td",
        { class: "left wide verdict " + ({ first: "better", second: "worse" }[pair.verdict] || "") },
        words,
        more ? el("span", { class: "between" }, more) : null,
      );
    };
    const scale = svg(
      "svg",
      { class: "flow", "aria-hidden": "true" },
      marks.values.map((v) =>
        svg(
          "text",
          { class: "tick", x: x(v), y: 16, "text-anchor": "middle" },
          (v > 1e-12 ? "+" : "") + v.toFixed(marks.digits),
        ),
      ),
    );
    const rows = pairs.map((pair) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, named(CONTENT.candidates[pair.first].name)),
        el("td", { class: "draw" }, draw(pair)),
        el(
          "td",
          { "data-pair": pair.first },
          pair.cells.difference[0],
          pair.cells.low[0]
            ? el("span", { class: "between" }, `${pair.cells.low[0]} ${text("to")} ${pair.cells.high[0]}`)
            : null,
        ),
        el("td", {}, pair.cells.p_holm[0] || "–"),
        verdict(pair),
      ),
    );
    const head = (key, name) => el("th", { scope: "col", class: name }, el("span", { class: "between" }, text(key)));
    return [
      el(
        "div",
        { class: "controls" },
        select(
          text("pair.reference"),
          CONTENT.candidates.map((c) => [c.name, c.name]),
          CONTENT.candidates[reference].name,
          (name) => {
            remember({ reference: name });
            part.redraw();
          },
        ),
      ),
      el(
        "div",
        { class: "scroll" },
        el(
          "table",
          { class: "figures forest" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              head("candidate"),
              el(
                "th",
                { class: "left draw", scope: "col" },
                el("span", { class: "unseen" }, text("pair.picture")),
                scale,
              ),
              head("pair.difference"),
              head("pair.p"),
              head("pair.verdict", "left"),
            ),
          ),
          el("tbody", {}, rows),
        ),
      ),
    ];
  });
  part.redraw();
  return section("pairs", el("p", { class: "note" }, text("note.pairs", { metric: text("column." + metric) })), part);
}
