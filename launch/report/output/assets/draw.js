"use strict";
// Draws in SVG: scales, axes, marks.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 330;
const PAD = { left: 62, right: 14, top: 10, bottom: 42 };
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

const colour = (i) => `var(--c${i % 8})`;
const dash = (i) => DASHES[Math.floor(i / 8) % DASHES.length];

function node(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

const write = (svg, text, x, y, more) => node("text", { x, y, "text-anchor": "middle", ...more }, svg, text);

function number(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return String(+value.toPrecision(4));
}

// An architecture is identified by its colour and by the shape of its points.
function mark(shape, x, y, r, attributes, parent) {
  const corners = [
    null,
    [-1, -1, 1, -1, 1, 1, -1, 1],
    [0, -1.2, 1.1, 0.9, -1.1, 0.9],
    [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0],
    [0, 1.2, 1.1, -0.9, -1.1, -0.9],
  ];
  const polygon = corners[shape % corners.length];
  if (!polygon) return node("circle", { cx: x, cy: y, r, ...attributes }, parent);
  const points = polygon.map((c, i) => (i % 2 ? y : x) + c * r).join(" ");
  return node("polygon", { points, ...attributes }, parent);
}

function ticks(low, high, log) {
  if (log) {
    const candidates = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++)
      for (const m of [1, 2, 5]) candidates.push(m * 10 ** k);
    const within = candidates.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    if (within.length >= 2 && within.length <= 9) return within;
    if (within.length > 9) return within.filter((v) => /^1/.test(v.toExponential()));
  }
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const values = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) values.push(+v.toPrecision(12));
  return values;
}

function scale(values, from, to, log) {
  let [low, high] = spread(values.filter(Number.isFinite));
  if (low === high)
    [low, high] = log
      ? [low / 1.5, high * 1.5]
      : [low - (Math.abs(low) * 0.1 || 1), high + (Math.abs(high) * 0.1 || 1)];
  const f = log ? Math.log10 : (v) => v;
  const margin = 0.04 * (f(high) - f(low));
  const [a, b] = [f(low) - margin, f(high) + margin];
  const position = (v) => from + ((f(log ? Math.max(v, low / 2) : v) - a) / (b - a)) * (to - from);
  position.ticks = ticks(low, high, log);
  return position;
}

// Math.min(...values) overflows the stack with very many values.
function spread(values) {
  const wider = ([low, high], v) => [Math.min(low, v), Math.max(high, v)];
  return values.length ? values.reduce(wider, [Infinity, -Infinity]) : [0, 1];
}

let frames = 0;

function frame(canvas, xs, ys, names, { logY = false, xTicks = true } = {}) {
  const width = Math.max(280, canvas.clientWidth);
  const svg = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, "aria-hidden": "true" }, canvas);
  const clip = `plot-${frames++}`; // unique: a clip path of a hidden section does not clip
  node(
    "rect",
    { x: PAD.left, y: 0, width: width - PAD.left - PAD.right, height: HEIGHT - PAD.bottom },
    node("clipPath", { id: clip }, svg),
  );
  const x = scale(xs, PAD.left, width - PAD.right),
    y = scale(ys, HEIGHT - PAD.bottom, PAD.top, logY);
  for (const v of y.ticks) {
    node("line", { x1: PAD.left, x2: width - PAD.right, y1: y(v), y2: y(v), class: "grid" }, svg);
    node("text", { x: PAD.left - 6, y: y(v) + 4, "text-anchor": "end" }, svg, number(v));
  }
  const every = Math.ceil(x.ticks.length / (width / 75));
  if (xTicks)
    x.ticks
      .filter((_, i) => i % every === 0)
      .forEach((v) => write(svg, number(v), x(v), HEIGHT - PAD.bottom + 17));
  write(svg, names[0], (PAD.left + width - PAD.right) / 2, HEIGHT - 6);
  write(svg, names[1], 0, 0, { transform: `translate(13 ${(HEIGHT - PAD.bottom) / 2}) rotate(-90)` });
  return { svg, x, y, width, inside: { "clip-path": `url(#${clip})` } };
}

function whisker(svg, x, y, ends, i) {
  const [mean, low, high] = ends;
  if (low !== null)
    node("line", { x1: x, x2: x, y1: y(low), y2: y(high), stroke: colour(i), "stroke-width": 2.5 }, svg);
  node("line", { x1: x - 9, x2: x + 9, y1: y(mean), y2: y(mean), stroke: colour(i), "stroke-width": 3 }, svg);
}

const percent = (v) => `${(100 * v).toFixed(2)} %`;
const formatted = (metric, v) => (metric.error || metric.unit === "%" ? percent(v) : number(v));
