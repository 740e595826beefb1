// Elements, numbers and embedded videos. Text goes in as text, never as HTML.

const at = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return node;
}

/** An HTML element: el("p", {class: "x"}, "text", child, ...). */
const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element. */
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** A number of about four digits, with a true minus; an en dash where there is none. */
function num(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  const places = size === 0 ? 0 : digits - 1 - Math.floor(Math.log10(size));
  const text = Number.isInteger(value) ? String(value)
    : value.toFixed(Math.max(0, Math.min(places, digits + 2)));
  return text.replace("-", "−");
}

/** A number as people write it: 0.02, not 0.02000. */
const short = (value) => String(Number(value.toPrecision(6))).replace("-", "−");

/** Bytes with thin spaces between thousands. */
const bytes = (n) => n === null || n === undefined ? "–"
  : String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, " ") + " B";

const urls = new Map();

/** The URL of a video of this page: a blob of what is embedded (a blob can be sought in at once, a
    data: URI cannot in every browser), or the link to its file. */
function videoUrl(id, links) {
  if (!id) return null;
  if (links && links[id]) return links[id];
  if (!urls.has(id)) {
    const text = atob(at(id).textContent);
    const data = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) data[i] = text.charCodeAt(i);
    urls.set(id, URL.createObjectURL(new Blob([data], { type: "video/mp4" })));
  }
  return urls.get(id);
}
