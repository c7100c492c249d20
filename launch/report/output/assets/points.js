// Tooltips of a chart's points.

const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.hidden = !text;
  tip.textContent = text;
  if (!text) return;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 16 + box.height > innerHeight ? y - box.height - 10 : y + 16}px`;
}

// Shows the tooltip of the nearest point; the arrow keys step through the points.
function track(canvas, { points, svg }) {
  let focused = -1;
  const ring = node("circle", { r: 7, class: "pointed", visibility: "hidden" }, svg);
  const order = points.map((_, i) => i).sort((a, b) => points[a][0] - points[b][0] || points[a][1] - points[b][1]);
  const show = (i) => {
    focused = i;
    const box = svg.getBoundingClientRect(),
      [x, y, text] = points[i],
      ratio = box.width / svg.viewBox.baseVal.width;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("visibility", "visible");
    showTip(text, box.left + x * ratio, box.top + y * ratio);
  };
  const leave = () => {
    ring.setAttribute("visibility", "hidden");
    showTip("");
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
      position = order.indexOf(focused),
      page = Math.ceil(order.length / 20);
    if (event.key === "Escape") leave();
    const target = {
      ArrowRight: position + 1,
      ArrowDown: position + 1,
      ArrowLeft: position - 1,
      ArrowUp: position - 1,
      Home: 0,
      End: last,
      PageDown: Math.min(last, position + page),
      PageUp: Math.max(0, position - page),
    }[event.key];
    if (target === undefined || last < 0) return;
    event.preventDefault();
    show(order[target < 0 ? last : target > last ? 0 : target]);
  };
}
