// Accuracy over cost, curves of training: SVG as wide as the page allows, so that its letters keep their size.
"use strict";

const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (r) => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
  (r) => `M0,${-r * 1.25}L${r * 1.25},0L0,${r * 1.25}L${-r * 1.25},0z`,
  (r) => `M0,${-r * 1.15}L${r * 1.15},${r * 0.9}H${-r * 1.15}z`,
  (r) => `M0,${r * 1.15}L${r * 1.15},${-r * 0.9}H${-r * 1.15}z`,
];
const COLORS = 8;
const DASHES = ["", "7 3", "2 3"];

const color = (index) => `var(--s${index % COLORS})`;

function marker(index, x, y, r, attributes) {
  return svg("path", {
    d: SHAPES[index % SHAPES.length](r),
    transform: `translate(${x},${y})`,
    fill: color(index),
    ...attributes,
  });
}

function keyOf(index) {
  return svg(
    "svg",
    { class: "key", viewBox: "-8 -6 16 12", "aria-hidden": "true" },
    svg("path", {
      d: "M-8,0H8",
      stroke: color(index),
      "stroke-width": 1.5,
      "stroke-dasharray": DASHES[Math.floor(index / COLORS) % DASHES.length],
    }),
    marker(index, 0, 0, 4, {}),
  );
}

// Round numbers from low to high, about as many as asked for, at least so far from each other.
function ticks(low, high, count, least = 0) {
  const rough = Math.max((high - low) / count, least) || 1,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.75);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + 1e-12; i++) found.push(i * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function logTicks(low, high) {
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    for (const factor of high / low > 60 ? [1] : high / low > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]) {
      const value = factor * power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  return { values: found, digits: null };
}

function short(value, digits) {
  const size = Math.abs(value);
  for (const [unit, name] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ])
    if (size >= unit || (unit === 1e4 && size >= 1e4))
      return +(value / (name === "k" ? 1e3 : unit)).toPrecision(3) + name;
  return digits === null ? String(+value.toPrecision(3)) : value.toFixed(digits);
}

// paper is as wide as it is, whatever the window
let printing = false;

// A frame with axes: {node, x, y} where x and y turn values into places.
function frame(node, options) {
  const width = printing ? 980 : Math.max(300, Math.min(1420, node.clientWidth || 900)),
    height = Math.round(Math.max(300, Math.min(500, width * 0.5)));
  const left = 58,
    right = width - 18,
    top = 26,
    bottom = height - 46;
  const [x0, x1] = options.x,
    [y0, y1] = options.y;
  const map = options.log ? Math.log : (v) => v;
  const x = (v) => left + ((map(v) - map(x0)) / (map(x1) - map(x0) || 1)) * (right - left);
  const y = (v) => bottom - ((v - y0) / (y1 - y0 || 1)) * (bottom - top);
  const across = options.log ? logTicks(x0, x1) : ticks(x0, x1, width / 110, options.least),
    up = ticks(y0, y1, 6);
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": options.label },
    up.values.map((v) => [
      svg("path", { class: "grid", d: `M${left},${y(v)}H${right}` }),
      svg("text", { class: "tick", x: left - 8, y: y(v) + 4, "text-anchor": "end" }, short(v, up.digits)),
    ]),
    across.values.map((v) => [
      svg("path", { class: "axis", d: `M${x(v)},${bottom}v5` }),
      svg("text", { class: "tick", x: x(v), y: bottom + 19, "text-anchor": "middle" }, short(v, across.digits)),
    ]),
    svg("path", { class: "axis", d: `M${left},${bottom}H${right}` }),
    svg("text", { class: "title", x: right, y: height - 8, "text-anchor": "end" }, options.across),
    svg("text", { class: "title", x: left - 48, y: 12 }, options.up),
  );
  return { node: drawing, x, y, left, right, top, bottom, width };
}

function spread(values, log) {
  const low = Math.min(...values),
    high = Math.max(...values);
  if (log) {
    const factor = Math.max(1.08, (high / low) ** 0.09);
    return [low / factor, high * factor];
  }
  const room = (high - low) * 0.09 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

// Of points {x, y, candidate}, those that no other beats in both: x low, y high.
function paretoFront(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  return sorted.filter((point) => point.y > best && ((best = point.y), true));
}

// Names beside their points, or above or below their intervals, where one of these places is free of others.
function placeNames(plot, points) {
  const taken = points.map((p) => ({ left: p.px - 7, right: p.px + 7, top: p.py - 7, bottom: p.py + 7 }));
  for (const p of points) if (p.bar) taken.push({ left: p.px - 2, right: p.px + 2, top: p.bar[0], bottom: p.bar[1] });
  const free = (box) =>
    box.left >= plot.left &&
    box.right <= plot.right + 14 &&
    box.top >= 14 &&
    box.bottom <= plot.bottom &&
    !taken.some(
      (other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top,
    );
  const nodes = [];
  for (const p of points) {
    const name = p.name.length > 26 ? p.name.slice(0, 25) + "…" : p.name;
    let size = 0;
    for (const letter of name) size += letter.charCodeAt(0) > 0x2e7f ? 12 : 6.6;
    const places = [
      [10, 4, "start"],
      [-10, 4, "end"],
      [10, -9, "start"],
      [10, 17, "start"],
      [-10, -9, "end"],
      [-10, 17, "end"],
      [0, -14, "middle"],
      [0, 22, "middle"],
      ...(p.bar
        ? [
            [0, p.bar[0] - p.py - 7, "middle"],
            [0, p.bar[1] - p.py + 15, "middle"],
          ]
        : []),
    ];
    for (const [dx, dy, anchor] of places) {
      const left = p.px + dx - (anchor === "end" ? size : anchor === "middle" ? size / 2 : 0);
      const box = { left, right: left + size, top: p.py + dy - 11, bottom: p.py + dy + 3 };
      if (!free(box)) continue;
      taken.push(box);
      nodes.push(
        svg(
          "text",
          {
            class: "name",
            x: p.px + dx,
            y: p.py + dy,
            "text-anchor": anchor,
            direction: "ltr",
            "unicode-bidi": "isolate",
          },
          name,
        ),
      );
      break;
    }
  }
  return nodes;
}

function legend(change) {
  return el(
    "div",
    { class: "legend" },
    CONTENT.candidates.map((candidate, i) =>
      el(
        "button",
        {
          type: "button",
          "aria-pressed": String(!state.hidden.includes(candidate.name)),
          onclick: () => {
            const hidden = state.hidden.filter((name) => name !== candidate.name);
            remember({ hidden: hidden.length === state.hidden.length ? [...hidden, candidate.name] : hidden });
            change();
          },
        },
        keyOf(i),
        el("span", {}, named(candidate.name)),
      ),
    ),
  );
}

function scatterSection() {
  const costs = CONTENT.columns.filter(
    (column) => column.cost && CONTENT.candidates.some((c) => cell(c, column.key)[1] > 0),
  );
  const accuracies = CONTENT.columns.filter(
    (column) => !column.of && ["accuracy", "areas", "files"].includes(column.group),
  );
  if (!costs.length || !CONTENT.candidates.some((c) => accuracies.some((a) => cell(c, a.key)[1] !== null))) return null;
  const part = live((node) => {
    const xs =
      costs.find((column) => column.key === state.x) ||
      costs.find((column) => column.group === "end_to_end") ||
      costs[0];
    const ys =
      accuracies.find((column) => column.key === state.y) ||
      accuracies.find((column) => column.key === CONTENT.settings.metric) ||
      accuracies[0];
    const points = CONTENT.candidates
      .map((candidate, index) => {
        const [x, y] = [cell(candidate, xs.key), cell(candidate, ys.key)];
        const bounds = (ys.bounds || []).map((key) => cell(candidate, key));
        return { index, candidate, name: candidate.name, x: x[1], y: y[1], xText: x[0], yText: y[0], bounds };
      })
      .filter((p) => p.x > 0 && p.y !== null);
    const shown = points.filter((p) => !state.hidden.includes(p.name));
    const low = Math.min(...points.map((p) => p.x)),
      high = Math.max(...points.map((p) => p.x));
    const log = state.log === null ? high / low > 8 : state.log;
    const controls = el(
      "div",
      { class: "controls" },
      select(
        text("chart.up"),
        accuracies.map((c) => [c.key, columnTitle(c)]),
        ys.key,
        (key) => {
          remember({ y: key });
          part.redraw();
        },
      ),
      select(
        text("chart.across"),
        costs.map((c) => [c.key, axisTitle(c)]),
        xs.key,
        (key) => {
          remember({ x: key, log: null });
          part.redraw();
        },
      ),
      check(text("chart.log"), log, (value) => {
        remember({ log: value });
        part.redraw();
      }),
    );
    if (!points.length) return [controls, el("p", { class: "note" }, text("chart.none"))];
    const limits = (p) => p.bounds.map((bound) => bound[1]).filter((v) => v !== null);
    const plot = frame(node, {
      x: spread(
        points.map((p) => p.x),
        log,
      ),
      y: spread(points.flatMap((p) => [p.y, ...limits(p)])),
      log,
      across: axisTitle(xs),
      up: columnTitle(ys),
      label: text("title.chart"),
    });
    for (const p of shown) {
      p.px = plot.x(p.x);
      p.py = plot.y(p.y);
      if (limits(p).length === 2) p.bar = [plot.y(p.bounds[1][1]), plot.y(p.bounds[0][1])];
    }
    const front = paretoFront(shown);
    if (front.length) {
      const steps = front.map((p, i) => (i ? `H${p.px}V${p.py}` : `M${p.px},${p.py}`)).join("");
      plot.node.append(svg("path", { class: "front", d: steps + `H${plot.right}` }));
    }
    for (const p of shown)
      if (p.bar)
        plot.node.append(
          svg("path", {
            class: "bar",
            stroke: color(p.index),
            d: `M${p.px},${p.bar[0]}V${p.bar[1]}m-4,0h8M${p.px - 4},${p.bar[0]}h8`,
          }),
        );
    plot.node.append(...placeNames(plot, shown));
    for (const p of shown) {
      const lines = [[columnTitle(ys), p.yText]];
      if (p.bar) lines.push([text("interval"), p.bounds[0][0] + " – " + p.bounds[1][0]]);
      lines.push([axisTitle(xs), p.xText]);
      for (const key of ["parameters", "gflops"])
        if (key !== xs.key && cell(p.candidate, key)[0]) lines.push([text("column." + key), cell(p.candidate, key)[0]]);
      if (front.includes(p)) lines.push([text("chart.onFront"), "✓"]);
      plot.node.append(hoverable(marker(p.index, p.px, p.py, 6, { class: "mark" }), p.name, lines));
    }
    return [controls, el("div", { class: "chart" }, plot.node), legend(() => part.redraw())];
  });
  return section("chart", el("p", { class: "note" }, text("note.chart")), part);
}

function axisTitle(column) {
  const over = ["end_to_end", "model", "memory"].includes(column.group)
    ? text("group." + column.group) + text("listing")
    : "";
  return over + columnTitle(column) + (column.unit ? " (" + column.unit + ")" : "");
}

// The mean of runs' values at each place that all of them have.
function meanCurve(runs, place, value) {
  if (runs.length < 2) return [];
  const length = Math.min(...runs.map((run) => run.curve.length));
  const mean = (i, column) => runs.reduce((sum, run) => sum + run.curve[i][column], 0) / runs.length;
  return Array.from({ length }, (_, i) => [mean(i, place), mean(i, value)]);
}

function curvesSection() {
  const all = CONTENT.candidates.flatMap((candidate, index) =>
    candidate.runs.filter((run) => run.curve.length > 1).map((run) => ({ ...run, index, candidate })),
  );
  if (!all.length) return null;
  const timed = all.every((run) => run.curve.every((point) => point[1] !== null));
  const part = live((node) => {
    const over = timed ? state.over : "epoch",
      place = over === "epoch" ? 0 : 1,
      value = state.curve === "map50" ? 2 : 3;
    const controls = el(
      "div",
      { class: "controls" },
      choice(
        text("chart.up"),
        ["map50_95", "map50"].map((key) => [key, text("column." + key)]),
        state.curve,
        (key) => {
          remember({ curve: key });
          part.redraw();
        },
      ),
      timed &&
        choice(
          text("chart.across"),
          ["epoch", "seconds"].map((key) => [key, text("curves." + key)]),
          over,
          (key) => {
            remember({ over: key });
            part.redraw();
          },
        ),
    );
    const points = all.flatMap((run) => run.curve);
    const plot = frame(node, {
      x: [0, Math.max(...points.map((p) => p[place]))],
      least: 1,
      y: spread(points.map((p) => p[value])),
      across: text("curves." + over),
      up: text("column." + state.curve),
      label: text("title.curves"),
    });
    const path = (values) =>
      values.map(([a, b], i) => `${i ? "L" : "M"}${plot.x(a).toFixed(1)},${plot.y(b).toFixed(1)}`).join("");
    const nearest = [];
    CONTENT.candidates.forEach((candidate, index) => {
      const runs = all.filter((run) => run.index === index);
      if (!runs.length || state.hidden.includes(candidate.name)) return;
      const dash = DASHES[Math.floor(index / COLORS) % DASHES.length];
      const thin = runs.length > 1 ? " thin" : "";
      for (const run of runs)
        plot.node.append(
          svg("path", {
            class: "curve" + thin,
            "data-candidate": index,
            stroke: color(index),
            "stroke-dasharray": dash,
            d: path(run.curve.map((p) => [p[place], p[value]])),
          }),
        );
      const mean = meanCurve(runs, place, value);
      if (mean.length)
        plot.node.append(
          svg("path", {
            class: "curve",
            "data-candidate": index,
            stroke: color(index),
            "stroke-dasharray": dash,
            d: path(mean),
          }),
        );
      for (const run of runs)
        for (const p of run.curve) nearest.push({ px: plot.x(p[place]), py: plot.y(p[value]), run, p });
    });
    followPointer(plot, nearest, value);
    return [controls, el("div", { class: "chart" }, plot.node), legend(() => part.redraw())];
  });
  return section("curves", el("p", { class: "note" }, text("note.curves")), part);
}

// The point of a curve that is nearest to the pointer: its ring, its figures, and the other curves pale.
function followPointer(plot, points, value) {
  const ring = svg("circle", { r: 5, fill: "none", "stroke-width": 2, visibility: "hidden" });
  const curves = [...plot.node.querySelectorAll(".curve")];
  plot.node.append(ring);
  const leave = () => {
    ring.setAttribute("visibility", "hidden");
    for (const curve of curves) curve.classList.remove("faded");
    tip.hide();
  };
  plot.node.addEventListener("pointermove", (event) => {
    const box = plot.node.getBoundingClientRect(),
      scale = plot.width / box.width;
    const x = (event.clientX - box.left) * scale,
      y = (event.clientY - box.top) * scale;
    let best = null,
      distance = 40 ** 2;
    for (const point of points) {
      const d = (point.px - x) ** 2 + (point.py - y) ** 2;
      if (d < distance) {
        distance = d;
        best = point;
      }
    }
    if (!best) return leave();
    for (const [name, v] of [
      ["cx", best.px],
      ["cy", best.py],
      ["stroke", color(best.run.index)],
      ["visibility", "visible"],
    ])
      ring.setAttribute(name, v);
    for (const curve of curves) curve.classList.toggle("faded", curve.dataset.candidate !== String(best.run.index));
    const lines = [
      [text("curves.epoch"), best.p[0]],
      [text("column." + (value === 2 ? "map50" : "map50_95")), best.p[value].toFixed(4)],
    ];
    if (best.p[1] !== null) lines.push([text("curves.seconds"), duration(best.p[1])]);
    if (best.run.seed !== null) lines.unshift([text("seed"), best.run.seed]);
    tip.show(ring, best.run.candidate.name, lines);
  });
  plot.node.addEventListener("pointerleave", leave);
}
