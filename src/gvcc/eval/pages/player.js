// The player: two clips on top of each other, a divider, a frame counter, a difference.

class Player {
  constructor(data) {
    this.data = data;
    this.a = at("video-a");
    this.b = at("video-b");
    this.divider = at("divider");
    this.pair = null; // {clip, a, b}: what is shown; a and b are cells, a null for the original
    this.sync = new Sync([this.a, this.b], (n) => this.show(n));
    this.profile = new Plot(at("profile-plot"), {
      title: "Change from each frame to the next", height: 170, xLabel: "frame", whole: true, zero: true,
      from: 1,
      pick: (x) => this.jump(x - 1),
      tell: (_, point, all) => [`frame ${point.x}`, ...all.map((s) => {
        const p = s.points.find((q) => q.x === point.x);
        return `${s.name}: ${p ? num(p.y, 3) : "–"}`;
      })],
    });
    this.choices();
    this.controls();
    this.move(50);
    this.load();
  }

  choices() {
    const { clips, codecs, rates } = this.data;
    const option = (text, value) => el("option", { value }, text);
    at("pick-clip").append(...clips.map((c, i) => option(c.name, i)));
    at("pick-a").append(option("original", -1), ...codecs.map((c, i) => option(c.codec, i)));
    at("pick-b").append(...codecs.map((c, i) => option(c.codec, i)), option("original", -1));
    at("pick-rate").append(...rates.map((r) => option(short(r), r)));
    at("pick-rate").value = rates[Math.floor((rates.length - 1) / 2)];
    for (const id of ["pick-clip", "pick-a", "pick-b", "pick-rate"])
      at(id).addEventListener("change", () => this.load());
  }

  controls() {
    const button = (id, act) => at(id).addEventListener("click", act);
    button("play", () => this.toggle());
    button("back", () => this.step(-1));
    button("forward", () => this.step(1));
    button("show-difference", () => this.toggleDifference());
    at("frame").addEventListener("input", () => this.jump(Number(at("frame").value)));
    at("gain").addEventListener("change", () => this.draw());
    at("speed").addEventListener("change", () => { this.sync.speed = Number(at("speed").value); });
    const stage = at("stage");
    const drag = (event) => {
      const box = stage.getBoundingClientRect();
      this.move((event.clientX - box.left) / box.width * 100);
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // no selection, no drag of the video
      stage.setPointerCapture(event.pointerId);
      this.divider.focus({ preventScroll: true, focusVisible: false });
      drag(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (stage.hasPointerCapture(event.pointerId)) drag(event);
    });
    this.divider.addEventListener("keydown", (event) => {
      const by = event.shiftKey ? 10 : 2;
      const to = { ArrowLeft: this.place - by, ArrowDown: this.place - by, ArrowRight: this.place + by,
        ArrowUp: this.place + by, Home: 0, End: 100 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.move(to);
    });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tag = event.target.tagName;
    if (tag === "SELECT" || (tag === "INPUT" && event.target.type !== "range")) return;
    if (event.key === " " && ["BUTTON", "SUMMARY", "A"].includes(tag)) return; // has a meaning there
    const act = { " ": () => this.toggle(), ",": () => this.step(-1), ".": () => this.step(1),
      d: () => this.toggleDifference() }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Choose what is shown: a clip, a codec for B, a rate; from a table's row. */
  open(clip, codec, rate) {
    at("pick-clip").value = clip;
    at("pick-b").value = codec;
    at("pick-rate").value = rate;
    this.load();
    at("compare").scrollIntoView();
    at("play").focus({ preventScroll: true });
  }

  async load() {
    const { data } = this;
    const clip = Number(at("pick-clip").value), rate = Number(at("pick-rate").value);
    const of = (id) => {
      const codec = Number(at(id).value);
      if (codec < 0) return { name: "original", codec, cell: null, video: data.clips[clip].video };
      const cell = data.cells.find((c) => c.codec === codec && c.clip === clip && c.rate === rate);
      return { name: data.codecs[codec].codec, codec, cell, video: cell && cell.video };
    };
    this.pair = { clip, rate, a: of("pick-a"), b: of("pick-b") };
    this.tell();
    const problems = [this.pair.a, this.pair.b].filter((s) => !s.video).map((s) => {
      const failed = s.cell && s.cell.status !== "ok";
      return failed ? `${s.name} failed here: ${s.cell.error}` : `no video of ${s.name} at this rate`;
    });
    this.playing(false);
    this.message(problems.join(". "));
    if (problems.length) {
      this.sync.ready = false;
      this.sync.stop();
      return;
    }
    const { width, height, hz, frames } = data.clips[clip];
    if (width && height) at("stage").style.setProperty("--shape", width / height);
    try {
      const urls = [this.pair.a, this.pair.b].map((s) => videoUrl(s.video, data.links));
      if (!await this.sync.load(urls, hz || 25, frames)) return;
      at("stage").style.setProperty("--shape", this.a.videoWidth / this.a.videoHeight);
    } catch (error) {
      this.message(error.message);
    }
  }

  message(text) {
    at("stage-message").textContent = text;
    at("stage-message").hidden = !text;
    at("stage").classList.toggle("empty", Boolean(text));
    for (const id of ["play", "back", "forward", "frame"]) at(id).disabled = Boolean(text);
  }

  /** Labels, numbers and profile of what is shown. */
  tell() {
    const { a, b } = this.pair;
    at("tag-a").textContent = `A ${a.name}`;
    at("tag-b").textContent = `B ${b.name}`;
    this.divider.setAttribute("aria-label", `Divider: left of it ${a.name}, right of it ${b.name}`);
    const both = [a, b];
    const row = (name, get, unit = "") => el("tr", null, el("th", { scope: "row" }, name, unit && el("small", null, ` ${unit}`)),
      ...both.map((s) => el("td", null, s.cell && s.cell.status === "ok" ? get(s.cell) : s.cell ? "failed" : "")));
    const metrics = this.data.metrics.filter((m) =>
      both.some((s) => s.cell && s.cell.metrics && s.cell.metrics[m.name] !== null && s.cell.metrics[m.name] !== undefined));
    this.psnr = row("PSNR, this frame", () => "", "dB");
    const table = at("readings");
    table.replaceChildren(table.caption, el("thead", null, el("tr", null, el("td"),
      ...both.map((s, i) => el("th", { scope: "col" }, el("span", { class: "letter" }, "AB"[i]), ` ${s.name}`)))),
    el("tbody", null, row("Size", (c) => bytes(c.bytes)), row("Rate", (c) => num(c.bits_per_pixel), "bits/pixel"),
      row("Rate", (c) => num(c.kbps), "kbit/s"),
      row("Encode", (c) => num(c.encode_s, 3), "s"), row("Decode", (c) => num(c.decode_s, 3), "s"),
      this.psnr, ...metrics.map((m) => row(m.label, (c) => num(c.metrics[m.name]), m.unit))));
    const lines = [];
    const known = both.find((s) => s.cell && s.cell.profile);
    const points = (values) => (values || []).map((y, i) => ({ x: i + 2, y }));
    if (known) lines.push({ name: "original", colour: "var(--ink)", dash: "5 4", width: 1.5, points: points(known.cell.profile.change_source) });
    for (const s of both) if (s.cell && s.cell.profile && !lines.some((l) => l.name === s.name))
      lines.push({ name: s.name, colour: colour(s.codec), width: 2, points: points(s.cell.profile.change) });
    this.profile.draw(lines);
    at("profile-legend").replaceChildren(...lines.map((l) => el("span", { class: "key" },
      svg("svg", { width: 22, height: 8, "aria-hidden": "true" }, svg("path", { d: "M0,4H22", stroke: l.colour,
        "stroke-width": 2, "stroke-dasharray": l.dash })), l.name)));
    this.show(this.sync.at);
  }

  /** What changes with the frame. */
  show(n) {
    const total = this.sync.frames;
    at("frame").max = total - 1;
    at("frame").value = n;
    at("frame").setAttribute("aria-valuetext", `frame ${n + 1} of ${total}`);
    at("counter").textContent = `frame ${n + 1} of ${total}`;
    this.profile.cursor(n + 1);
    [this.pair.a, this.pair.b].forEach((s, i) => {
      const values = s.cell && s.cell.profile && s.cell.profile.psnr_db;
      this.psnr.cells[i + 1].textContent = values ? num(values[n]) : "";
    });
    this.draw();
  }

  move(place) {
    this.place = Math.max(0, Math.min(100, place));
    at("stage").style.setProperty("--place", `${this.place}%`);
    this.divider.setAttribute("aria-valuenow", Math.round(this.place));
    this.divider.setAttribute("aria-valuetext", `A on the left ${Math.round(this.place)} %`);
  }

  playing(on) {
    at("play").textContent = on ? "Pause" : "Play";
    at("play").setAttribute("aria-pressed", on);
  }

  toggle() {
    if (!this.sync.ready) return;
    this.playing(!this.sync.playing);
    if (this.sync.playing) this.sync.pause();
    else this.sync.play();
  }

  step(d) {
    this.playing(false);
    return this.sync.step(d);
  }

  jump(n) {
    this.playing(false);
    this.sync.stop();
    return this.sync.seek(n);
  }

  async toggleDifference() {
    const on = at("difference").hidden;
    const was = this.sync.playing;
    if (was) await this.sync.pause();
    at("difference").hidden = at("gain-label").hidden = !on;
    at("show-difference").setAttribute("aria-pressed", on);
    at("stage").classList.toggle("differs", on);
    this.sync.exact = on; // of running videos it would be of two different frames
    this.draw();
    if (was) this.sync.play();
  }

  /** The difference of the two frames; by compositing, as the pixels of linked files cannot be read. */
  draw() {
    const canvas = at("difference");
    if (canvas.hidden || !this.sync.ready) return;
    const [width, height] = [this.a.videoWidth, this.a.videoHeight];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.globalCompositeOperation = "copy";
    pen.drawImage(this.a, 0, 0, width, height);
    pen.globalCompositeOperation = "difference";
    pen.drawImage(this.b, 0, 0, width, height);
    pen.globalCompositeOperation = "lighter"; // adds the picture to itself: doubles it
    for (let gain = Number(at("gain").value); gain > 1; gain /= 2) pen.drawImage(canvas, 0, 0);
  }
}
