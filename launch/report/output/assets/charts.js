// Each chart draws cells, { cell, i }, and returns { points: [x, y, tooltip], svg }, or null without data.

// What seeds are together: mean and interval, or median and range.
const centre = (values) => values[summary.value];
const centreLines = (c) =>
  summary.value === "mean" ? [c.mean, c.low, c.high] : [c.median, c.least, c.most];

// Error against x: every seed, and what they are together.
function lines(canvas, cells, line, name) {
  const drawable = cells.filter(({ cell }) => line(cell));
  if (!drawable.length) return null;
  const ys = drawable
    .flatMap(({ cell }) => Object.values(line(cell).seeds).flat())
    .map((v) => (v === null ? null : 100 * v));
  const logY = spread(ys.filter(Number.isFinite))[0] > 0;
  const f = frame(
    canvas,
    drawable.flatMap(({ cell }) => line(cell).x),
    ys,
    [name, logY ? "error (%, log)" : "error (%)"],
    { logY },
  );
  const path = (xs, values) =>
    xs
      .map((x, j) => (values[j] === null ? "" : `${f.x(x).toFixed(1)},${f.y(100 * values[j]).toFixed(1)}`))
      .filter(Boolean)
      .join(" ");
  const points = [];
  for (const { cell, i } of drawable) {
    const c = line(cell),
      thin = {
        fill: "none",
        stroke: colour(i),
        "stroke-width": 0.7,
        "stroke-opacity": Math.max(0.12, 0.6 - Object.keys(c.seeds).length / 120),
      };
    for (const [seed, values] of Object.entries(c.seeds)) {
      node("polyline", { points: path(c.x, values), ...thin }, f.svg);
      values.forEach(
        (v, j) =>
          v !== null &&
          points.push([
            f.x(c.x[j]),
            f.y(100 * v),
            `${cell.label}, seed ${seed}, ${name} ${number(c.x[j])}: ${percent(v)} error`,
          ]),
      );
    }
    const [, low, high] = centreLines(c);
    const band = c.x.map((_, j) => j).filter((j) => low[j] !== null);
    const edge = [...band.map((j) => [j, high[j]]), ...band.reverse().map((j) => [j, low[j]])];
    node(
      "polygon",
      {
        points: edge.map(([j, v]) => `${f.x(c.x[j]).toFixed(1)},${f.y(100 * v).toFixed(1)}`).join(" "),
        fill: colour(i),
        "fill-opacity": 0.16,
        ...f.inside,
      },
      f.svg,
    );
  }
  for (const { cell, i } of drawable) {
    node(
      "polyline",
      {
        points: path(line(cell).x, centreLines(line(cell))[0]),
        fill: "none",
        stroke: colour(i),
        "stroke-width": 2.4,
        "stroke-dasharray": dash(i),
      },
      f.svg,
    );
    const { x: xs } = line(cell),
      [middle] = centreLines(line(cell));
    xs.forEach((x, j) => mark(i, f.x(x), f.y(100 * middle[j]), xs.length > 25 ? 1.5 : 3, { fill: colour(i) }, f.svg));
  }
  return { points, svg: f.svg };
}

const CHARTS = {
  seeds(canvas, cells, metric) {
    const drawable = cells.filter(({ cell }) => cell.values[metric.key].mean[0] !== null);
    if (!drawable.length) return null;
    const k = metric.scale,
      all = drawable.flatMap(({ cell }) => [
        ...Object.values(cell.values[metric.key].seeds),
        ...centre(cell.values[metric.key]),
      ]);
    const f = frame(
      canvas,
      [0, drawable.length],
      all.map((v) => (v === null ? null : k * v)),
      ["", metric.axis],
      { xTicks: false },
    );
    const step = (f.width - PAD.left - PAD.right) / drawable.length,
      points = [];
    const y = (v) => f.y(k * v);
    drawable.forEach(({ cell, i }, position) => {
      const { seeds } = cell.values[metric.key],
        middle = PAD.left + step * (position + 0.5);
      Object.entries(seeds).forEach(([seed, v], j) => {
        const x = middle + Math.min(26, step / 3) * (((j * 0.618034) % 1) - 0.5) * 1.6 - Math.min(12, step / 5);
        mark(i, x, y(v), 3.4, { fill: colour(i), "fill-opacity": 0.55 }, f.svg);
        points.push([x, y(v), `${cell.label}, seed ${seed}: ${formatted(metric, v)}`]);
      });
      whisker(f.svg, middle + Math.min(30, step / 3), y, centre(cell.values[metric.key]), i);
      const room = Math.max(4, Math.floor(step / 7));
      const half = room >> 1; // settings differ at the end
      const name =
        cell.label.length > room ? `${cell.label.slice(0, room - half - 1)}…${cell.label.slice(-half)}` : cell.label;
      if (step > 40) write(f.svg, name, middle, HEIGHT - PAD.bottom + 17);
    });
    return { points, svg: f.svg };
  },

  curves: (canvas, cells) => lines(canvas, cells, (cell) => cell.curve, "epoch"),

  applied: (canvas, cells, metric, chosen) => lines(canvas, cells, (cell) => cell.applied?.[chosen], chosen),

  cost(canvas, cells, metric, chosen) {
    const drawable = cells.filter(({ cell }) => cell.costs[chosen] && cell.values[metric.key].mean[0] !== null);
    if (!drawable.length) return null;
    const k = metric.scale,
      name = COSTS[chosen];
    const f = frame(
      canvas,
      drawable.map(({ cell }) => cell.costs[chosen]),
      drawable.flatMap(({ cell }) => centre(cell.values[metric.key])).map((v) => (v === null ? null : k * v)),
      [name, metric.axis],
    );
    const points = drawable.map(({ cell, i }) => {
      const x = f.x(cell.costs[chosen]),
        ends = centre(cell.values[metric.key]);
      whisker(f.svg, x, (v) => f.y(k * v), ends, i);
      mark(i, x, f.y(k * ends[0]), 5, { fill: colour(i) }, f.svg);
      return [x, f.y(k * ends[0]), `${cell.label}: ${formatted(metric, ends[0])}, ${number(cell.costs[chosen])} ${name}`];
    });
    return { points, svg: f.svg };
  },

  confusion(canvas, cells, metric, chosen) {
    const selected = cells.find(({ cell }) => cell.label === chosen && cell.confusion);
    if (!selected) return null;
    const { mean, least, most, n } = selected.cell.confusion,
      K = mean.length,
      width = Math.max(280, canvas.clientWidth),
      side = Math.min(HEIGHT - 50, width - 60) / K;
    const svg = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, "aria-hidden": "true" }, canvas),
      points = [];
    mean.forEach((line, i) => {
      const total = line.reduce((a, b) => a + b, 0) || 1;
      node("text", { x: 44, y: (i + 0.5) * side + 4, "text-anchor": "end" }, svg, i);
      write(svg, i, 50 + (i + 0.5) * side, K * side + 15);
      line.forEach((v, j) => {
        const share = v / total;
        node(
          "rect",
          {
            x: 50 + j * side,
            y: i * side,
            width: side * 0.96,
            height: side * 0.96,
            fill: "var(--c0)",
            "fill-opacity": share > 0 ? 0.08 + 0.92 * share ** 0.4 : 0.02,
          },
          svg,
        );
        const percentage = share > 0 && 100 * share < 10 ? (100 * share).toFixed(1) : (100 * share).toFixed(0);
        if (v > 0 && side > 21)
          write(svg, percentage, 50 + (j + 0.5) * side - 0.5, (i + 0.5) * side + 4, {
            "font-size": Math.min(11, side / 2.6),
            style: share ** 0.4 > 0.5 ? "fill: var(--paper)" : "",
          });
        points.push([
          50 + (j + 0.5) * side,
          (i + 0.5) * side,
          `true ${i}, predicted ${j}: ${number(v)} images, ${least[i][j]} to ${most[i][j]} over ${n} seed${n === 1 ? "" : "s"} (${(100 * share).toFixed(2)} %)`,
        ]);
      });
    });
    write(svg, "predicted class, in % of the true class", 50 + (K * side) / 2, K * side + 32);
    write(svg, "true class", 0, 0, { transform: `translate(16 ${(K * side) / 2}) rotate(-90)` });
    return { points, svg };
  },

  pose(canvas, cells, metric, chosen) {
    const selected = cells.find(({ cell }) => cell.label === chosen && cell.pose);
    if (!selected) return null;
    const { unit, points: pairs, slope, intercept } = selected.cell.pose,
      all = pairs.flat();
    const f = frame(canvas, all, all, [`applied (${unit})`, `predicted (${unit})`]),
      i = selected.i;
    const points = pairs.map(([a, b]) => {
      mark(i, f.x(a), f.y(b), 2.6, { fill: colour(i), "fill-opacity": 0.45 }, f.svg);
      return [f.x(a), f.y(b), `applied ${number(a)}, predicted ${number(b)} (${unit})`];
    });
    const [low, high] = spread(all);
    const line = (a, b, attributes) =>
      node("line", { x1: f.x(low), y1: f.y(a + b * low), x2: f.x(high), y2: f.y(a + b * high), ...attributes }, f.svg);
    line(0, 1, { stroke: "var(--soft)", "stroke-dasharray": "5 4", "stroke-width": 1.5 });
    if (slope !== null && intercept !== null) {
      line(intercept, slope, { stroke: "var(--ink)", "stroke-width": 1.8 });
      const equation = `y = ${slope.toFixed(2)} x ${intercept < 0 ? "-" : "+"} ${Math.abs(intercept).toFixed(1)}`;
      node("text", { x: PAD.left + 8, y: PAD.top + 14 }, f.svg, equation);
    }
    return { points, svg: f.svg };
  },
};
