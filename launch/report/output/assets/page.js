// Shows what is selected. Nothing here computes a statistic.

const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => [...within.querySelectorAll(selector)];
const [dataset, metric, summary, filter] = ["dataset", "metric", "summary", "filter"].map((id) => document.getElementById(id));
const COSTS = { params: "parameters", seconds: "seconds per seed", images_per_s: "images/s" };

const matches = (text) => text.toLowerCase().includes(filter.value.trim().toLowerCase());
const current = () => DATA[dataset.selectedIndex];

// ---- charts

function legend(cells) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const { cell, i } of cells) {
    const item = document.createElement("li"),
      svg = node("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" }, item);
    node(
      "line",
      { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour(i), "stroke-width": 2, "stroke-dasharray": dash(i) },
      svg,
    );
    mark(i, 13, 6, 4, { fill: colour(i) }, svg);
    item.append(cell.label);
    list.append(item);
  }
  return list;
}

// A chart of one architecture, or against one of several costs, has a select of its own.
function choose(figure, options) {
  let select = figure.querySelector("select");
  const before = select && select.value;
  if (!select) {
    select = document.createElement("select");
    select.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: select what is shown`);
    select.onchange = () => drawChart(figure);
    figure.querySelector(".canvas").before(select);
  }
  select.replaceChildren(...Object.entries(options).map(([value, text]) => new Option(text, value)));
  if (before in options) select.value = before;
  return select.value;
}

function drawChart(figure) {
  const kind = figure.dataset.chart,
    canvas = figure.querySelector(".canvas"),
    data = current();
  const cells = data.cells.map((cell, i) => ({ cell, i })).filter(({ cell }) => matches(cell.label));
  const selected = data.metrics.find(({ key }) => key === metric.value);
  canvas.replaceChildren();
  figure.querySelector(".legend")?.remove();
  figure.hidden = false;
  let chosen;
  if (kind === "cost") chosen = choose(figure, COSTS);
  if (kind === "applied") {
    const poses = data.cells.flatMap((cell) => Object.keys(cell.applied ?? {}));
    chosen = choose(figure, Object.fromEntries(poses.map((pose) => [pose, pose])));
  }
  if (kind === "confusion" || kind === "pose") {
    const drawable = cells.filter(({ cell }) => cell[kind]);
    chosen = drawable.length
      ? choose(figure, Object.fromEntries(drawable.map(({ cell }) => [cell.label, cell.label])))
      : undefined;
  }
  const drawn = CHARTS[kind](canvas, cells, selected, chosen);
  figure.hidden = !drawn;
  if (!drawn) return;
  if (["seeds", "curves", "cost", "applied"].includes(kind)) canvas.after(legend(cells));
  track(canvas, drawn);
}

// ---- tables

function sortBy(button) {
  const heading = button.closest("th"),
    body = heading.closest("table").tBodies[0],
    column = heading.cellIndex;
  const up = heading.getAttribute("aria-sort") !== "ascending";
  $("th", heading.parentElement).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.sort;
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // unknown values come last
    const numbers = Number(x) - Number(y);
    return (up ? 1 : -1) * (Number.isNaN(numbers) ? x.localeCompare(y) : numbers);
  };
  body.append(...[...body.rows].sort(order));
}

// ---- selection

function show() {
  if (!current()) return;
  $("section[data-dataset]").forEach((section, i) => {
    section.hidden = i !== dataset.selectedIndex;
    if (section.hidden) return;
    $(".panel", section).forEach((panel) => (panel.hidden = panel.dataset.metric !== metric.value));
    $("[data-about]", section).forEach((element) => (element.hidden = !matches(element.dataset.about)));
    $(".chart", section).forEach(drawChart);
  });
  showTip("");
}

function chooseDataset() {
  const before = metric.value,
    metrics = current()?.metrics ?? [];
  metric.replaceChildren(...metrics.map(({ key, title }) => new Option(title, key)));
  if (metrics.some(({ key }) => key === before)) metric.value = before;
  show();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
theme(dark.matches ? "dark" : "light");
dark.onchange = () => theme(dark.matches ? "dark" : "light");
document.getElementById("theme").onclick = () =>
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
dataset.onchange = chooseDataset;
metric.onchange = summary.onchange = show;
filter.oninput = show;
$("thead button").forEach((button) => (button.onclick = () => sortBy(button)));
let width = innerWidth;
window.onresize = () => {
  if (innerWidth !== width) {
    width = innerWidth;
    show();
  }
};
let before;
window.onbeforeprint = () => {
  before = document.documentElement.dataset.theme;
  theme("light");
};
window.onafterprint = () => theme(before);
// Start with the first data set that has something to show.
dataset.selectedIndex = Math.max(
  0,
  DATA.findIndex(({ cells }) => cells.some(({ values }) => Object.values(values).some(({ mean }) => mean[0] !== null))),
);
chooseDataset();
