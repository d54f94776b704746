// What is said beside tables and charts: progress, what was compared on what, the pick, machine, commands.
"use strict";

function progressPart() {
  const { done, total, share, left } = CONTENT.progress;
  if (CONTENT.stage === "finished") return null;
  return el(
    "div",
    { class: "progress" },
    el(
      "p",
      {},
      el("strong", {}, text("stage." + CONTENT.stage)),
      " ",
      total ? text("progress.done", { done, total }) : null,
      !left ? null : " " + text("progress.left", { left: duration(left) }),
    ),
    el("progress", { max: 1, value: share, "aria-label": text("progress.label") }),
    el("p", { class: "note" }, text("progress.reload", { seconds: CONTENT.reload })),
  );
}

function factsPart() {
  const { data, settings } = CONTENT;
  const facts = [
    ["data", data.file && named(data.file)],
    ["classes", CONTENT.classes.length || null],
    ["train_images", data.train_images],
    ["val_images", data.val_images],
    ["imgsz", data.imgsz],
    ["epochs", settings.epochs],
    ["seeds", settings.seeds.join(", ")],
    ["batch_size", settings.batch_size],
    ["metric", text("column." + settings.metric)],
  ].filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return el(
    "dl",
    { class: "facts" },
    facts.map(([key, value]) => el("div", {}, el("dt", {}, text("fact." + key)), el("dd", {}, value))),
  );
}

// The pick ------------------------------------------------------------------------------------------------------------

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
  const metric = text("column." + CONTENT.settings.metric),
    lines = [];
  const limits = pick.constraints.map(([flag, most], i) => [
    i ? " " : "",
    el("span", { class: "mono" }, `${flag} ${most}`),
  ]);
  const nameOf = (i) => el("strong", {}, named(CONTENT.candidates[i].name));
  let open = true;
  const fit = CONTENT.candidates.filter((candidate, i) => !pick.left_out.some(([out]) => out === i));
  const unnamed =
    fit.length === 0
      ? "pick.none"
      : fit.every((candidate) => cell(candidate, CONTENT.settings.metric)[1] === null)
        ? "pick.unmeasured"
        : "pick.unnamed";
  if (pick.best === null) lines.push(el("p", { class: "lead" }, text(unnamed)));
  else {
    const pair = pick.second === null ? null : pairOf(pick.best, pick.second);
    const figure = cell(CONTENT.candidates[pick.best], CONTENT.settings.metric)[0];
    const values = { best: nameOf(pick.best), second: pick.second === null ? "" : nameOf(pick.second), metric, figure };
    const kind = pick.second === null ? "alone" : pair ? pair.verdict : "too_few_seeds";
    open = kind !== "first" && kind !== "alone";
    lines.push(el("p", { class: "lead" }, pieces("pick." + kind, values)));
    if (pair)
      lines.push(
        el(
          "p",
          {},
          text("pick.difference", { metric, difference: differenceWords(pair) }),
          " ",
          kind === "no_difference" ? seedsWords(pair) : "",
        ),
      );
    const rivals = CONTENT.candidates
      .map((candidate, i) => i)
      .filter((i) => {
        const other =
          i !== pick.best && i !== pick.second && !pick.left_out.some(([out]) => out === i) && pairOf(pick.best, i);
        return other && other.verdict === "no_difference";
      });
    if (rivals.length)
      lines.push(
        el(
          "p",
          {},
          pieces("pick.rivals", {
            names: rivals.map((i, n) => [n ? text("comma") : "", named(CONTENT.candidates[i].name)]),
          }),
        ),
      );
  }
  if (limits.length) lines.push(el("p", { class: "note" }, text("pick.limits"), " ", limits));
  if (pick.left_out.length)
    lines.push(
      el(
        "p",
        { class: "note" },
        text("pick.left_out"),
        " ",
        pick.left_out.map(([i, why, excess], n) => [
          n ? text("semicolon") : "",
          named(CONTENT.candidates[i].name),
          text("bracket", { why: excess ? excessWords(excess) : why }),
        ]),
      ),
    );
  return section("pick", el("div", { class: open ? "pick open" : "pick" }, lines));
}

// Machine and commands -------------------------------------------------------------------------------------------------

function machineSection() {
  const { machine, settings } = CONTENT;
  const versions = [
    ["Python", machine.python],
    ["PyTorch", machine.torch],
    ["torchvision", machine.torchvision],
    ["OpenCV", machine.opencv],
    ...Object.entries(machine.runtimes),
  ];
  const entries = [
    ["machine", machine.name],
    ["device", machine.device],
    ["cores", machine.cores],
    ["threads", machine.threads],
    ["os", machine.os],
    [
      "versions",
      versions
        .filter(([, version]) => version)
        .map((pair) => pair.join(" "))
        .join(", "),
    ],
    ["noise", machine.noise],
    ["train", settings.train],
  ];
  const known = entries.filter(([, value]) => value !== null && value !== "" && value !== undefined);
  if (!known.length) return null;
  return section(
    "machine",
    el(
      "dl",
      { class: "pairs" },
      known.map(([key, value]) => [
        el("dt", {}, text("machine." + key)),
        el("dd", { class: key === "train" ? "mono" : null }, String(value)),
      ]),
    ),
  );
}

async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
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
  return words.replace(
    /[\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u0000-\u0009\u000b-\u001f\u007f-\u009f]/gu,
    (letter) => "\\u{" + letter.codePointAt(0).toString(16) + "}",
  );
}

function commandPart(title, lines) {
  const words = lines.join("\n");
  const button = el(
    "button",
    {
      type: "button",
      "aria-label": text("copyOf", { name: title }),
      onclick: async () => {
        await copy(words);
        button.textContent = text("copied");
        document.getElementById("said").textContent = text("copied");
        setTimeout(() => {
          button.textContent = text("copy");
        }, 1500);
      },
    },
    text("copy"),
  );
  return el("div", { class: "command" }, el("h3", {}, named(title)), el("pre", {}, visible(words)), button);
}

function commandsSection() {
  const each = CONTENT.candidates
    .map((c) => [c.name, c.runs.map((run) => run.command).filter(Boolean)])
    .filter(([, lines]) => lines.length);
  return section(
    "commands",
    el("p", { class: "note" }, text("note.commands")),
    CONTENT.command ? commandPart(text("all"), [CONTENT.command]) : null,
    each.map(([name, lines]) => commandPart(name, lines)),
  );
}
