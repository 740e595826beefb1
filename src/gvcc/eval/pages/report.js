// The page: facts, rate-distortion plots, and what the other files draw.

/** Whether a file's size is far from what was asked for. */
const missed = (c) => c.status === "ok" && Math.abs(Math.log(c.bits_per_pixel / c.rate)) > Math.log(1.06);

function facts(data) {
  const clips = data.clips.length, ok = data.cells.filter((c) => c.status === "ok").length;
  const priors = [...new Set(data.codecs.map((c) => c.prior).filter(Boolean))];
  const fact = (name, value) => el("div", null, el("dt", null, name), el("dd", null, value));
  const many = data.codecs.length;
  at("heading").textContent = `${many} codec${many > 1 ? "s" : ""} on the set ${data.set}`;
  at("facts").append(fact("Measured", data.date), fact("Clips", data.about.split(", ").slice(1).join(", ")),
    fact("Rates, bits/pixel", data.rates.map(short).join(", ")),
    fact("Prior", priors.join(", ") || "none"), fact("Results", `${ok} of ${data.cells.length}`));
  const notices = [];
  if (priors.some((p) => p.split(":")[0] === "nano")) notices.push(
    "The prior is nano: nano is a small embedded prior; nothing here says anything of Wan.");
  if (ok < data.cells.length) notices.push(el("a", { href: "#failures" },
    `${data.cells.length - ok} of ${data.cells.length} results failed; their messages are below.`));
  const off = data.cells.filter(missed).length;
  if (off) notices.push(`${off} file${off > 1 ? "s are" : " is"} over 6 % off the size asked for (≠ in the tables), where a ` +
    "codec had none nearer: compare along the curves, not at a rate.");
  if (!data.embedded) notices.push("The videos are too large to be in this page: " +
    "it links to the files beside it and shows none without them.");
  at("notices").append(...notices.map((n) => el("p", { class: "notice" }, n)));
  if (!clips) at("compare").hidden = true;
}

function ratePlots(data) {
  const shown = data.codecs.map(() => true);
  const pick = at("curves-clip");
  pick.append(el("option", { value: -1 }, `mean of ${data.clips.length}`),
    ...data.clips.map((c, i) => el("option", { value: i }, c.name)));

  function points(metric, codec, clip) {
    if (clip < 0) return data.means[metric][codec].map((p) => ({ x: p.bits_per_pixel, y: p.value, ...p,
      hollow: p.clips < data.clips.length }));
    return data.cells.filter((c) => c.codec === codec && c.clip === clip && c.metrics &&
      c.metrics[metric] !== null && c.metrics[metric] !== undefined)
      .map((c) => ({ ...c, x: c.bits_per_pixel, y: c.metrics[metric], clips: 1, hollow: false }))
      .sort((p, q) => p.x - q.x);
  }

  const plots = [...data.metrics, ...data.set_metrics].map((m) => {
    const box = el("div", { class: "plot" });
    const better = { higher: "higher is better ↑", lower: "lower is better ↓" }[m.better] || m.better;
    at("plots").append(el("figure", { id: `plot-${m.name}` }, el("figcaption", null, el("strong", null, m.label),
      m.unit ? `, ${m.unit}` : "", el("span", { class: "better" }, better)), box));
    const plot = new Plot(box, {
      title: m.label, log: true, height: 260, xLabel: "bits per pixel",
      tell: (series, p) => [series.name, `${num(p.y)}${m.unit ? ` ${m.unit}` : ""}`,
        `${num(p.x)} bits/pixel (asked ${short(p.rate)})`,
        Number(pick.value) < 0 ? `${bytes(p.bytes)} on average, ${p.clips} of ${data.clips.length} clips` : bytes(p.bytes)],
    });
    return { plot, metric: m.name };
  });

  function draw() {
    const clip = Number(pick.value);
    let hollow = false;
    for (const { plot, metric } of plots) {
      const series = data.codecs.map((c, i) => ({ name: c.codec, colour: colour(i), shape: shape(i),
        width: c.codec.startsWith("gvcc:") ? 2.8 : 1.6, points: shown[i] ? points(metric, i, clip) : [] }));
      hollow ||= series.some((s) => s.points.some((p) => p.hollow));
      plot.draw(series);
    }
    at("hollow").textContent = hollow ? "A hollow mark, off its line, is the mean of fewer clips than the others: it does not compare with them." : "";
  }

  at("legend").append(...data.codecs.map((c, i) => el("button", { class: "chip", "aria-pressed": "true",
    onclick: (event) => {
      shown[i] = !shown[i];
      event.currentTarget.setAttribute("aria-pressed", shown[i]);
      draw();
    } }, swatch(i), c.codec)));
  pick.addEventListener("change", draw);
  draw();
}

const report = JSON.parse(at("data").textContent);
facts(report);
ratePlots(report);
const player = new Player(report);
bdTables(report);
numberTables(report, player);
failures(report);
codecList(report);
