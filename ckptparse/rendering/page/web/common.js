"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const tensors = page.tensors;
const total = tensors.name.length;
const STATES = ["verified", "corrected", "derived", "partial", "unverified", "corrupt", "missing"];
const DAMAGED = new Set(["partial", "unverified", "corrupt", "missing"]);
const BINS = 64;
const QUANTILES = ["1%", "5%", "25%", "50%", "75%", "95%", "99%"];
const find = (id) => document.getElementById(id);

// Names come from files that anyone may have written: they only ever become text.
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") element.className = value;
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function decode(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}
function sizeText(size) {
  if (size < 1024) return size + " B";
  for (const unit of ["KiB", "MiB", "GiB", "TiB"]) {
    size /= 1024;
    if (size < 1023.95 || unit === "TiB") return size.toFixed(1) + " " + unit;
  }
}
function numberText(value, digits = 4, least = 1e-4) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e6 || size < least ? value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e") : Number(value.toPrecision(digits)).toString();
}
const shapeText = (shape) => (shape === null ? "?" : "[" + shape.join(",") + "]");
const elementsOf = (shape) => (shape === null ? 0 : shape.reduce((a, b) => a * b, 1));

const stateOf = (row) => tensors.state.values[tensors.state.rows[row]];
const typeOf = (row) => tensors.dtype.values[tensors.dtype.rows[row]];
const roleOf = (row) => tensors.role.values[tensors.role.rows[row]];
const isDamaged = (row) => DAMAGED.has(stateOf(row));

// Statistics by row: [smallest, largest, mean, deviation, elements, zeros, NaN, infinite].
const bins = decode(tensors.stats.bins);
const measured = new Map(tensors.stats.rows.map((row, place) => [row, place]));
function statsOf(row) {
  const place = measured.get(row);
  return place === undefined ? null : tensors.stats.numbers[place];
}
const binsOf = (row) => bins.subarray(measured.get(row) * BINS, (measured.get(row) + 1) * BINS);
const isOdd = (row) => isDamaged(row) || (statsOf(row) !== null && (statsOf(row)[6] > 0 || statsOf(row)[7] > 0));

const layerOf = new Map();
page.model.layers.forEach((layer, number) => layer.rows.forEach((row) => layerOf.has(row) || layerOf.set(row, number)));

// Colours are the style sheet's, so that they follow the theme.
let colours = null;
function colour(name) {
  if (colours === null) colours = getComputedStyle(document.documentElement);
  return colours.getPropertyValue("--" + name).trim();
}
// What became of a tensor between two checkpoints has the colours of states.
const BECAME = { equal: "verified", changed: "partial", added: "derived", removed: "missing", renamed: "corrected" };
const stateColour = (state) => colour(BECAME[state] || (STATES.includes(state) ? state : "unknown"));
const changeOf = (row) => tensors.changes[row] || null;
const REDRAWN = [];
function redrawAll() {
  colours = null;
  for (const draw of REDRAWN) draw();
}
function say(text) {
  find("live").textContent = text;
}
function showTip(event, text) {
  const tip = find("tip");
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4)) + "px";
  const below = event.clientY + 18;
  tip.style.top = (below + box.height > innerHeight ? event.clientY - box.height - 10 : below) + "px";
}
const hideTip = () => (find("tip").hidden = true);

// Gives a canvas as many dots as the screen has, and the size of its box in CSS pixels.
function prepare(canvas) {
  const box = canvas.getBoundingClientRect(), scale = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * scale));
  canvas.height = Math.max(1, Math.round(box.height * scale));
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [context, box.width, box.height];
}
function swatch(fill, text) {
  const mark = make("span", { class: "swatch" });
  mark.style.background = fill;
  return make("span", {}, mark, text);
}
// Twelve steps from dark to light that stay apart without colour vision.
const RAMP = ["#30123b", "#3b2a8a", "#2f55a4", "#1f7fa3", "#1a9f8f", "#3fb973", "#7ccb57", "#b5d645", "#e6d839", "#f9c12f", "#f99a26", "#ee6a1c"];
const ramp = (share) => RAMP[Math.max(0, Math.min(RAMP.length - 1, Math.floor(share * RAMP.length)))];
