// BD-rates, all numbers, failures, codecs.

/** A table whose columns sort: `columns` are [head, row -> value, row -> shown, is a number]. */
function sortable(caption, columns, rows) {
  const body = el("tbody");
  const heads = columns.map(([head, value, , number], i) => el("th", { scope: "col", class: number ? "number" : null },
    el("button", { onclick: () => sort(i) }, head)));
  const show = (list) => body.replaceChildren(...list.map((r) => el("tr", { class: r.status === "ok" ? null : "failed" },
    ...columns.map(([, , shown, number]) => el("td", { class: number ? "number" : null }, shown(r))))));
  function sort(i) {
    const up = heads[i].getAttribute("aria-sort") !== "ascending";
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", up ? "ascending" : "descending");
    const get = columns[i][1];
    const none = (v) => v === null || v === undefined;
    show([...rows].sort((p, q) => {
      const x = get(p), y = get(q);
      if (none(x) || none(y)) return none(x) - none(y); // what is missing goes last both ways
      const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
      return up ? order : -order;
    }));
  }
  show(rows);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", null, el("caption", { class: "hidden" }, caption), el("thead", null, el("tr", null, ...heads)), body));
}

function numberTables(data, player) {
  const name = (r) => data.codecs[r.codec].codec;
  const plain = (head, key, shown = num) => [head, (r) => r[key], (r) => shown(r[key]), true];
  const brief = (v) => num(v, 3);
  const has = (r, m) => (r.metrics ? r.metrics[m] : null);
  const columns = [
    ["codec", name, (r) => el("button", { class: "row", title: "Show in the player",
      onclick: () => player.open(r.clip, r.codec, r.rate) }, swatch(r.codec), name(r)), false],
    plain("asked", "rate", short),
    ["bits/pixel", (r) => r.bits_per_pixel, (r) => `${missed(r) ? "≠ " : ""}${num(r.bits_per_pixel)}`, true], plain("bytes", "bytes"),
    plain("kbit/s", "kbps"), plain("encode, s", "encode_s", brief), plain("decode, s", "decode_s", brief),
    ...data.metrics.map((m) => [m.unit ? `${m.label}, ${m.unit}` : m.label, (r) => has(r, m.name),
      (r) => num(has(r, m.name)), true]),
  ];
  at("tables-body").append(el("p", { class: "hint" },
    "A head sorts its column; a codec's name shows that file in the player."));
  data.clips.forEach((clip, i) => {
    const box = el("details", { open: i === 0 }, el("summary", null, clip.name,
      el("small", null, ` ${clip.width ? `${clip.width}×${clip.height}, ${clip.frames} frames, ${clip.hz ? short(clip.hz) : "?"} Hz` : ""}`)));
    const make = () => { // at the first opening: a set may have hundreds of clips
      if (box.open && box.children.length === 1)
        box.append(sortable(`Results of ${clip.name}`, columns, data.cells.filter((c) => c.clip === i)));
    };
    box.addEventListener("toggle", make);
    make();
    at("tables-body").append(box);
  });
  const reasons = new Map();
  for (const c of data.cells) for (const [m, why] of Object.entries(c.not_computed || {})) {
    const key = `${m}: ${why}`;
    reasons.set(key, (reasons.get(key) || 0) + 1);
  }
  if (reasons.size) at("tables-body").append(el("details", null, el("summary", null, "What was not computed, and why"),
    el("ul", null, ...[...reasons].map(([text, n]) => el("li", null, `${text} (${n} of ${data.cells.length} results)`)))));
}

function failures(data) {
  const failed = data.cells.filter((c) => c.status !== "ok");
  at("failures-body").append(failed.length
    ? el("ul", { class: "failures" }, ...failed.map((c) => el("li", null,
      el("strong", null, `${data.codecs[c.codec].codec}, ${data.clips[c.clip].name}, ${short(c.rate)} bits/pixel`),
      el("span", null, c.error || "no message"))))
    : el("p", null, "None: every codec coded every clip at every rate."));
}

function codecList(data) {
  at("about-body").append(el("div", { class: "codecs" }, ...data.codecs.map((c, i) => el("article", null,
    el("h3", null, swatch(i), c.codec), c.prior && el("p", null, "Prior: ", c.prior),
    c.command && el("pre", { tabindex: 0 }, c.command), c.size_rule && el("p", null, `Size: ${c.size_rule}`),
    ...(c.notes || []).map((n) => el("p", null, n))))));
}

function bdTables(data) {
  const body = at("bd-body");
  const tables = Object.values(data.bd);
  if (!tables.length) {
    body.append(el("p", null, "No BD-rates were computed."));
    return;
  }
  const pick = el("select", null, ...tables.map((t, i) => el("option", { value: i }, t.label)));
  const method = el("select", null, el("option", { value: "pchip" }, "PCHIP"), el("option", { value: "akima" }, "Akima"));
  const held = el("div");
  const percent = (v) => `${v > 0 ? "+" : ""}${v.toFixed(1).replace("-", "−")} %`;
  function show() {
    const t = tables[pick.value], found = t[method.value], notes = [];
    const cell = (i, j) => {
      if (i === j) return el("td", { class: "same" }, "·");
      const value = found.rate_percent[i][j], interval = found.interval[i][j], p = found.p_value?.[i][j], said = found.warnings[i][j];
      if (said.length) notes.push([`${t.codecs[i]} over ${t.codecs[j]}`, said, `bd-note-${i}-${j}`]);
      const strength = value === null ? 0 : Math.min(1, Math.abs(value) / 60) * 0.42;
      return el("td", { style: value === null ? null : `background: rgb(var(${value < 0 ? "--less" : "--more"}) / ${strength.toFixed(2)})` },
        el("span", { class: "value" }, value === null ? "none" : percent(value)),
        interval ? el("small", null, `${percent(interval[0])} to ${percent(interval[1])}`) : null,
        p == null || i === j ? null : el("small", null, `p ${p.toFixed(3)}`),
        said.length ? el("a", { class: "warn", href: `#bd-note-${i}-${j}`, onclick: () => { held.querySelector("details").open = true; } },
          `${said.length} warning${said.length > 1 ? "s" : ""}`) : null);
    };
    const rows = t.codecs.map((c, i) => el("tr", null, el("th", { scope: "row" }, c), ...t.codecs.map((_, j) => cell(i, j))));
    held.replaceChildren(
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `BD-rate by ${t.label}` }, el("table", { class: "bd" },
        el("caption", { class: "hidden" }, `BD-rate by ${t.label}`),
        el("thead", null, el("tr", null, el("td", { class: "corner" }, "row over column"), ...t.codecs.map((c) => el("th", { scope: "col" }, c)))),
        el("tbody", null, ...rows))),
      notes.length ? el("details", { class: "warnings" }, el("summary", null, "Warnings"), el("dl", null,
        ...notes.flatMap(([pair, said, id]) => [el("dt", { id }, pair), ...said.map((s) => el("dd", null, s))]))) : "");
  }
  pick.addEventListener("change", show);
  method.addEventListener("change", show);
  body.append(el("div", { class: "controls" }, el("label", null, "Equal quality by ", pick), el("label", null, "Curves by ", method)),
    el("p", { class: "hint" }, "−20 % means: the row's codec needs 20 % fewer bits than the column's for equal quality. " +
      "Below it, the 95 % interval over clips, and p of a paired test over them (with n clips at least 2^(1-n)). A warning says that two curves hardly compare: read it before the number."), held);
  show();
}
