// What is chosen decides what is shown; nothing here computes a figure.

const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => [...within.querySelectorAll(selector)];
const [dataset, metric, filter, tip] = ["dataset", "metric", "filter", "tip"].map((id) => document.getElementById(id));
const COSTS = { params: "parameters", seconds: "seconds of a seed", images_per_s: "images/s" };

const matches = (text) => text.toLowerCase().includes(filter.value.trim().toLowerCase());
const current = () => DATA[dataset.selectedIndex];

// ---- charts

function say(text, x, y) {
  tip.hidden = !text;
  tip.textContent = text;
  if (!text) return;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 16 + box.height > innerHeight ? y - box.height - 10 : y + 16}px`;
}

// Points can be pointed at, and stepped through with the arrow keys.
function follow(canvas, { points, svg }) {
  let at = -1;
  const ring = node("circle", { r: 7, class: "pointed", visibility: "hidden" }, svg);
  const order = points.map((_, i) => i).sort((a, b) => points[a][0] - points[b][0] || points[a][1] - points[b][1]);
  const show = (i) => {
    at = i;
    const box = svg.getBoundingClientRect(),
      [x, y, text] = points[i],
      ratio = box.width / svg.viewBox.baseVal.width;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("visibility", "visible");
    say(text, box.left + x * ratio, box.top + y * ratio);
  };
  const leave = () => {
    ring.setAttribute("visibility", "hidden");
    say("");
  };
  canvas.onpointermove = canvas.onpointerdown = (event) => {
    const box = svg.getBoundingClientRect(),
      ratio = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    let best = -1,
      least = 900;
    points.forEach(([a, b], i) => {
      const d = (a - x) ** 2 + (b - y) ** 2;
      if (d < least) [best, least] = [i, d];
    });
    best < 0 ? leave() : show(best);
  };
  canvas.onpointerleave = canvas.onblur = leave;
  canvas.onkeydown = (event) => {
    const last = order.length - 1,
      place = order.indexOf(at),
      page = Math.ceil(order.length / 20);
    if (event.key === "Escape") leave();
    const to = {
      ArrowRight: place + 1,
      ArrowDown: place + 1,
      ArrowLeft: place - 1,
      ArrowUp: place - 1,
      Home: 0,
      End: last,
      PageDown: Math.min(last, place + page),
      PageUp: Math.max(0, place - page),
    }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    show(order[to < 0 ? last : to > last ? 0 : to]);
  };
}

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

// A chart of one architecture, or against one of several costs, has a choice of its own.
function choice(figure, options) {
  let select = figure.querySelector("select");
  const before = select && select.value;
  if (!select) {
    select = document.createElement("select");
    select.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: of what`);
    select.onchange = () => drawOne(figure);
    figure.querySelector(".canvas").before(select);
  }
  select.replaceChildren(...Object.entries(options).map(([value, text]) => new Option(text, value)));
  if (before in options) select.value = before;
  return select.value;
}

function drawOne(figure) {
  const kind = figure.dataset.chart,
    canvas = figure.querySelector(".canvas"),
    found = current();
  const cells = found.cells.map((cell, i) => ({ cell, i })).filter(({ cell }) => matches(cell.label));
  const of = found.metrics.find((one) => one.key === metric.value);
  canvas.replaceChildren();
  figure.querySelector(".legend")?.remove();
  figure.hidden = false;
  let chosen;
  if (kind === "cost") chosen = choice(figure, COSTS);
  if (kind === "confusion" || kind === "pose") {
    const able = cells.filter(({ cell }) => cell[kind]);
    chosen = able.length
      ? choice(figure, Object.fromEntries(able.map(({ cell }) => [cell.label, cell.label])))
      : undefined;
  }
  const drawn = CHARTS[kind](canvas, cells, of, chosen);
  figure.hidden = !drawn;
  if (!drawn) return;
  if (["seeds", "curves", "cost"].includes(kind)) canvas.after(legend(cells));
  follow(canvas, drawn);
}

// ---- tables

function sortBy(button) {
  const heading = button.closest("th"),
    body = heading.closest("table").tBodies[0],
    column = heading.cellIndex;
  const up = heading.getAttribute("aria-sort") !== "ascending";
  $("th", heading.parentElement).forEach((each) => each.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.sort;
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // what is not known comes last
    const numbers = Number(x) - Number(y);
    return (up ? 1 : -1) * (Number.isNaN(numbers) ? x.localeCompare(y) : numbers);
  };
  body.append(...[...body.rows].sort(order));
}

// ---- what is chosen

function show() {
  const found = current();
  if (!found) return;
  $("section[data-dataset]").forEach((section, i) => {
    section.hidden = i !== dataset.selectedIndex;
    if (section.hidden) return;
    $(".panel", section).forEach((panel) => (panel.hidden = panel.dataset.metric !== metric.value));
    $("[data-about]", section).forEach((each) => (each.hidden = !matches(each.dataset.about)));
    $(".chart", section).forEach(drawOne);
  });
  say("");
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
metric.onchange = show;
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
// The first that has something to show.
dataset.selectedIndex = Math.max(
  0,
  DATA.findIndex(({ cells }) => cells.some(({ values }) => Object.values(values).some(({ mean }) => mean[0] !== null))),
);
chooseDataset();
