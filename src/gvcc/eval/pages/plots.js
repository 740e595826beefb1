// Line plots as SVG, to be read by pointer, touch or keyboard.

// One shape for each codec besides its colour, about the origin: as _MARKERS in plots.py.
const SHAPES = [
  "M4.5,0A4.5,4.5 0 1 1 -4.5,0A4.5,4.5 0 1 1 4.5,0Z",
  "M-4,-4H4V4H-4Z",
  "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
  "M0,-5L5,4H-5Z",
  "M0,5L5,-4H-5Z",
  "M-2,-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
];

const colour = (i) => `var(--c${i % 10})`;
const shape = (i) => SHAPES[i % SHAPES.length];

/** A codec's line and mark, for legends. */
const swatch = (i) => svg("svg", { width: 28, height: 12, viewBox: "-14 -6 28 12", "aria-hidden": "true" },
  svg("path", { d: "M-14,0H14", stroke: colour(i), "stroke-width": 2 }),
  svg("path", { d: shape(i), fill: colour(i) }));

/** Ticks of a linear axis, about `count` of them; `least`: the least step, 1 where only whole numbers mean something. */
function linearTicks(low, high, count, least = 0) {
  const rough = Math.max((high - low) / count, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    out.push(Number((k * step).toPrecision(12)));
  return out;
}

function logTicks(low, high) {
  const out = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const m of [1, 2, 5]) {
      const tick = Number((m * 10 ** p).toPrecision(6));
      if (tick >= low * 0.999 && tick <= high * 1.001) out.push(tick);
    }
  return out;
}

/** Series: {name, colour, shape (or null for no marks), width, dash, points: [{x, y, hollow}]}. */
class Plot {
  /** `options`: title, note, log (the x axis), height, xLabel, tell(series, point) -> lines of text,
      whole (show all series at the x pointed at), pick(x) when a place is chosen. */
  constructor(box, options) {
    this.box = box;
    this.options = options;
    this.series = [];
    this.chosen = null;
    this.canvas = svg("svg", { tabindex: 0, role: "img" });
    this.tip = el("div", { class: "tip", role: "status", hidden: true });
    box.append(this.canvas, this.tip);
    const point = (event) => this.point(event);
    this.canvas.addEventListener("pointermove", (event) => {
      point(event);
      if (event.buttons && options.pick && this.chosen) options.pick(this.chosen.point.x);
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      point(event);
      if (options.pick && this.chosen) options.pick(this.chosen.point.x);
    });
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("focus", () => {
      if (!this.chosen && this.series.length && this.canvas.matches(":focus-visible")) this.walk(0, 0);
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    let width = 0;
    new ResizeObserver(() => {
      if (Math.abs(box.clientWidth - width) < 1) return;
      width = box.clientWidth;
      this.draw(this.series);
    }).observe(box);
  }

  draw(series) {
    this.series = series.filter((s) => s.points.length);
    const { log, height, title } = this.options;
    const width = Math.max(200, this.box.clientWidth);
    const edge = { left: 50, right: 14, top: 8, bottom: 40 };
    const points = this.series.flatMap((s) => s.points);
    this.canvas.replaceChildren();
    this.choose(null);
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.setAttribute("height", height);
    this.canvas.setAttribute("aria-label", `${title}. ${points.length
      ? `Plot of ${this.series.map((s) => s.name).join(", ")}; arrow keys read the values.` : "Nothing to show."}`);
    if (!points.length) {
      this.canvas.append(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show"));
      return;
    }
    const scale = log ? Math.log : (v) => v;
    const range = (values, room) => {
      const low = Math.min(...values), high = Math.max(...values);
      const pad = (high - low || Math.abs(high) * 0.1 || 1) * room;
      return [low - pad, high + pad];
    };
    const xs = points.map((p) => scale(p.x));
    if (this.options.from !== undefined) xs.push(this.options.from);
    const [x0, x1] = range(xs, log ? 0.06 : 0);
    let [y0, y1] = range(points.map((p) => p.y), 0.08);
    if (this.options.zero) y0 = 0;
    this.x = (v) => edge.left + (scale(v) - x0) / (x1 - x0) * (width - edge.left - edge.right);
    this.y = (v) => height - edge.bottom - (v - y0) / (y1 - y0) * (height - edge.top - edge.bottom);
    this.span = [edge.top, height - edge.bottom];
    const foot = height - edge.bottom;
    const xTicks = log ? logTicks(Math.exp(x0), Math.exp(x1)) : linearTicks(x0, x1, width / 90, 1);
    for (const tick of linearTicks(y0, y1, height / 50)) {
      const y = this.y(tick);
      this.canvas.append(svg("path", { class: "grid", d: `M${edge.left},${y}H${width - edge.right}` }),
        svg("text", { x: edge.left - 8, y: y + 4, "text-anchor": "end" }, short(tick)));
    }
    for (const tick of xTicks) {
      const x = this.x(tick);
      this.canvas.append(svg("path", { class: "grid", d: `M${x},${edge.top}V${foot}` }),
        svg("text", { x, y: foot + 16, "text-anchor": "middle" }, short(tick)));
    }
    this.canvas.append(svg("text", { x: (edge.left + width - edge.right) / 2, y: height - 5,
      "text-anchor": "middle", class: "axis" }, this.options.xLabel));
    for (const s of this.series) {
      // A mean over other clips is not a point of the curve.
      const path = s.points.filter((p) => !p.hollow).map((p, i) => `${i ? "L" : "M"}${this.x(p.x)},${this.y(p.y)}`).join("");
      this.canvas.append(svg("path", { d: path, fill: "none", stroke: s.colour, "stroke-width": s.width,
        "stroke-linejoin": "round", "stroke-dasharray": s.dash }));
      if (s.shape) for (const p of s.points)
        this.canvas.append(svg("path", { class: p.hollow ? "mark hollow" : "mark", d: s.shape, stroke: s.colour,
          fill: s.colour, transform: `translate(${this.x(p.x)},${this.y(p.y)})` }));
    }
    this.ring = svg("circle", { class: "ring", r: 9, visibility: "hidden" });
    this.line = svg("path", { class: "cursor", visibility: "hidden" });
    this.canvas.append(this.line, this.ring);
    if (this.now !== undefined) this.cursor(this.now);
  }

  /** Mark a place on the x axis. */
  cursor(x) {
    this.now = x;
    if (!this.series.length || !this.line) return;
    const last = Math.max(...this.series.flatMap((s) => s.points.map((p) => p.x)));
    const place = this.x(Math.min(x, last));
    this.line.setAttribute("d", `M${place},${this.span[0]}V${this.span[1]}`);
    this.line.setAttribute("visibility", "visible");
  }

  point(event) {
    if (!this.series.length) return;
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, near = this.options.whole ? Infinity : 45;
    for (const series of this.series) for (const point of series.points) {
      const dx = this.x(point.x) - x, dy = this.options.whole ? 0 : this.y(point.y) - y;
      if (Math.hypot(dx, dy) < near) [best, near] = [{ series, point }, Math.hypot(dx, dy)];
    }
    this.choose(best);
  }

  choose(found) {
    this.chosen = found;
    this.tip.hidden = !found;
    if (this.ring) this.ring.setAttribute("visibility", found && !this.options.whole ? "visible" : "hidden");
    if (!found) return;
    const { series, point } = found;
    const x = this.x(point.x), y = this.y(point.y);
    this.ring.setAttribute("cx", x);
    this.ring.setAttribute("cy", y);
    this.tip.replaceChildren(...this.options.tell(series, point, this.series).map((line, i) =>
      el(i ? "div" : "strong", null, line)));
    const room = this.box.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, x - this.tip.offsetWidth / 2))}px`;
    const above = y - this.tip.offsetHeight - 14;
    this.tip.style.top = `${above >= -20 ? above : y + 14}px`;
  }

  /** To point i of series s. */
  walk(s, i) {
    const series = this.series[(s + this.series.length) % this.series.length];
    this.choose({ series, point: series.points[Math.max(0, Math.min(series.points.length - 1, i))] });
  }

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") return this.choose(null);
    if (event.key === "Enter" && this.chosen && this.options.pick) this.options.pick(this.chosen.point.x);
    if (!moves[event.key] || !this.series.length) return;
    event.preventDefault();
    if (!this.chosen) return this.walk(0, 0);
    const s = this.series.indexOf(this.chosen.series);
    const i = this.chosen.series.points.indexOf(this.chosen.point);
    this.walk(s + moves[event.key][0], i + moves[event.key][1]);
  }
}
