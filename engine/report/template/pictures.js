// The same pictures as each candidate sees them, side by side and large.
"use strict";

function viewOf(picture, boxes, large) {
  const size = Math.max(picture.width, picture.height) / (large ? 34 : 20);
  const sure = boxes.filter((box) => box[4] >= state.confidence).sort((a, b) => a[4] - b[4]);
  const tint = (box) => CONTENT.colors[box[5] % CONTENT.colors.length];
  return svg(
    "svg",
    { viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" },
    svg("image", {
      href: "data:image/jpeg;base64," + picture.jpeg,
      width: picture.width,
      height: picture.height,
      preserveAspectRatio: "none",
    }),
    sure.map((box) =>
      svg("rect", {
        class: "box",
        x: box[0],
        y: box[1],
        width: Math.max(0, box[2] - box[0]),
        height: Math.max(0, box[3] - box[1]),
        stroke: tint(box),
      }),
    ),
    large
      ? sure.map((box) =>
          svg(
            "text",
            {
              x: box[0],
              y: box[1] > size * 1.2 ? box[1] - size * 0.3 : box[1] + size,
              "font-size": size,
              direction: "ltr",
              "unicode-bidi": "isolate",
            },
            classOf(box) + (box[4] < 1 ? " " + box[4].toFixed(2) : ""),
          ),
        )
      : null,
  );
}

function classOf(box) {
  return CONTENT.classes[box[5]] ?? String(box[5]);
}

// What is labelled, and what each candidate has found, in the order of the page.
function viewsOf(picture) {
  const found = CONTENT.candidates
    .map((candidate, i) => [candidate.name, picture.boxes[i], i])
    .filter(([, boxes]) => boxes !== null);
  return [[text("labels"), picture.labels, null], ...found];
}

function enlarge(picture, at) {
  const views = viewsOf(picture),
    dialog = el("dialog", { "aria-label": picture.file });
  const draw = () =>
    dialog.replaceChildren(
      el(
        "div",
        { class: "controls" },
        el("strong", {}, named(views[at][0])),
        el(
          "span",
          {},
          el("button", { type: "button", onclick: () => step(-1), "aria-label": text("previous") }, "←"),
          " ",
          el("button", { type: "button", onclick: () => step(1), "aria-label": text("next") }, "→"),
          " ",
          el("button", { type: "button", onclick: () => dialog.close() }, text("close")),
        ),
      ),
      viewOf(picture, views[at][1], true),
    );
  const step = (by) => {
    at = (at + by + views.length) % views.length;
    draw();
    dialog.querySelectorAll("button")[by > 0 ? 1 : 0].focus();
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => dialog.remove());
  draw();
  document.body.append(dialog);
  dialog.showModal();
}

function picturesSection() {
  if (!CONTENT.pictures.length) return null;
  const part = live(() =>
    CONTENT.pictures.map((picture) =>
      el(
        "div",
        { class: "row" },
        el("h3", {}, named(picture.file)),
        el(
          "div",
          { class: "strip" },
          viewsOf(picture).map(([name, boxes, index], at) => {
            const count = boxes.filter((box) => box[4] >= state.confidence).length;
            return el(
              "figure",
              {},
              el(
                "button",
                {
                  type: "button",
                  class: "view",
                  "aria-label": text("enlarge", { name, n: count }),
                  onclick: () => enlarge(picture, at),
                },
                viewOf(picture, boxes, false),
              ),
              el("figcaption", { class: index === null ? "unit" : null }, named(name)),
            );
          }),
        ),
      ),
    ),
  );
  const value = el("output", {}, state.confidence.toFixed(2));
  const slider = el("input", {
    type: "range",
    min: CONTENT.confidence,
    max: 0.95,
    step: 0.05,
    value: state.confidence,
    oninput: (event) => {
      remember({ confidence: Number(event.target.value) });
      value.textContent = state.confidence.toFixed(2);
      part.redraw();
    },
  });
  part.redraw();
  const used = new Set(
    CONTENT.pictures.flatMap((p) => [p.labels, ...p.boxes.filter(Boolean)].flat().map((box) => box[5])),
  );
  const key = el(
    "div",
    { class: "legend" },
    [...used]
      .sort((a, b) => a - b)
      .slice(0, 24)
      .map((c) =>
        el(
          "span",
          { class: "status" },
          svg(
            "svg",
            { class: "key", viewBox: "0 0 16 12", "aria-hidden": "true" },
            svg("rect", {
              x: 2,
              y: 1,
              width: 12,
              height: 10,
              fill: "none",
              "stroke-width": 2,
              stroke: CONTENT.colors[c % CONTENT.colors.length],
            }),
          ),
          named(CONTENT.classes[c] ?? String(c)),
        ),
      ),
  );
  return section(
    "pictures",
    el("p", { class: "note" }, text("note.pictures")),
    el("div", { class: "controls" }, el("label", {}, text("confidence"), slider, value), key),
    part,
  );
}
