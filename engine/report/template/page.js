// The page: its sections in order, language, light and dark.
"use strict";

function paint() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function switches() {
  return el(
    "div",
    { class: "switches" },
    choice(
      text("language"),
      [
        ["en", "English", "en"],
        ["zh", "中文", "zh-CN"],
      ],
      language(),
      (key) => {
        remember({ language: key });
        render();
        refocus(key);
      },
    ),
    choice(
      text("theme"),
      ["light", "dark"].map((key) => [key, text("theme." + key)]),
      document.documentElement.dataset.theme,
      (key) => {
        remember({ theme: key });
        paint();
        render();
        refocus(key);
      },
    ),
  );
}

function refocus(key) {
  document.querySelector(`.switches [data-key="${key}"]`).focus();
}

function render() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.title = CONTENT.title;
  tip.hide();
  const sections = [
    pickSection(),
    tableSection(),
    scatterSection(),
    pairsSection(),
    curvesSection(),
    errorsSection(),
    picturesSection(),
    runsSection(),
    machineSection(),
    commandsSection(),
  ].filter((part) => part !== null);
  if (CONTENT.stage !== "finished") sections.sort((a, b) => (b.id === "runs") - (a.id === "runs"));
  document.getElementById("top").replaceChildren(
    el("div", { class: "masthead" }, el("h1", {}, named(CONTENT.title)), switches()),
    factsPart(),
    el(
      "nav",
      { "aria-label": text("contents") },
      sections.map((part) => el("a", { href: "#" + part.id }, text("title." + part.id))),
    ),
    ...[progressPart()].filter(Boolean),
  );
  document.getElementById("main").replaceChildren(...sections);
  document.getElementById("foot").replaceChildren(text("foot", { created: CONTENT.created, updated: CONTENT.updated }));
  drawCharts();
}

// Charts are as wide as their place, which is known only once they stand in the page.
function drawCharts() {
  for (const id of ["chart", "curves"]) {
    const part = document.querySelector(`#${id} > div`);
    if (part) part.redraw();
  }
}

paint();
render();
// a page that loads itself anew stays where its reader has got to
if (CONTENT.stage !== "finished") {
  scrollTo(0, Number(stored("scroll")) || 0);
  addEventListener("pagehide", () => store("scroll", scrollY));
}
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) {
    width = innerWidth;
    drawCharts();
  }
});
addEventListener("beforeprint", () => {
  printing = true;
  drawCharts();
});
addEventListener("afterprint", () => {
  printing = false;
  drawCharts();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hide();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  paint();
  render();
});
