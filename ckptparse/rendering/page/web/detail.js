// One tensor by itself, in a dialog.
let opener = null;
function openDetail(row) {
  const dialog = find("detail");
  if (!dialog.open) opener = document.activeElement;
  const close = make("button", { type: "button", class: "close", onclick: () => dialog.close() }, "✕ Close");
  const name = make("h2", { id: "detail-name" }, named(tensors.name[row]));
  dialog.replaceChildren(close, make("div", { class: "sheet" }, name, ...detailParts(row)));
  hideTip();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  drawHeat(row);
  close.focus();
}
function detailParts(row) {
  const parts = [];
  if (tensors.alias[row]) parts.push(make("p", { class: "note" }, "variable " + tensors.alias[row]));
  parts.push(facts(detailFacts(row)));
  if (changeOf(row)) parts.push(facts(changeFacts(changeOf(row))));
  const note = tensors.notes[row];
  if (note) parts.push(...noteParts(note));
  if (measured.has(row)) parts.push(...statisticsParts(row));
  return parts;
}
function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.filter((pair) => pair[1] !== null && pair[1] !== "").map(([title, value]) => make("div", {}, make("dt", {}, title), make("dd", {}, value))));
}
function detailFacts(row) {
  const place = tensors.place[row], shape = tensors.shape[row];
  const layer = layerOf.has(row) ? page.model.layers[layerOf.get(row)] : null;
  return [
    ["type", typeOf(row)],
    ["shape", shapeText(shape)],
    ["elements", shape === null ? null : elementsOf(shape).toLocaleString("en")],
    ["size", sizeText(tensors.bytes[row])],
    ["state", swatch(stateColour(stateOf(row)), stateOf(row))],
    ["kind", roleOf(row)],
    ["layer", layer ? layer.name + (layer.kind ? ` (${layer.kind})` : "") : null],
    ["file", place ? page.files[place[0]].path : null],
    ["place", place ? `bytes ${place[1].toLocaleString("en")} to ${(place[1] + place[2]).toLocaleString("en")}` : null],
    ["CRC-32C", place && place[3] ? place[3] : null],
  ];
}
function changeFacts(change) {
  const arrow = (pair, text) => (pair ? `${text(pair[0])} → ${text(pair[1])}` : null);
  return [
    ["was called", change.was || null],
    ["type changed", arrow(change.dtype, String)],
    ["shape changed", arrow(change.shape, shapeText)],
    ["largest difference", change.largest === undefined || change.largest === null ? null : numberText(change.largest)],
    ["mean difference", change.mean === undefined || change.mean === null ? null : numberText(change.mean)],
    ["elements that differ", change.share === undefined || change.share === null ? null : shareText(change.share, 1)],
  ];
}
function noteParts(note) {
  const parts = [facts([["cause", note.cause || null], ["got back by", note.method || null], ["chance of a wrong value", note.chance === undefined ? null : numberText(note.chance)]])];
  if (note.note) parts.push(make("p", {}, note.note));
  if (note.ranges) parts.push(make("p", {}, "Elements present: " + note.ranges.map((span) => `${span[0]} to ${span[1] - 1}`).join(", ")));
  if (note.evidence) parts.push(make("ul", {}, ...note.evidence.map((step) => make("li", {}, step))));
  return parts;
}
function statisticsParts(row) {
  const stats = statsOf(row), quantiles = tensors.stats.quantiles[measured.get(row)];
  const numbers = facts([
    ["min", numberText(stats[0])], ["max", numberText(stats[1])], ["mean", numberText(stats[2])], ["std", numberText(stats[3])],
    ["zeros", `${stats[5].toLocaleString("en")} (${shareText(stats[5], stats[4])})`],
    ["NaN", oddNumber(stats[6])], ["infinite", oddNumber(stats[7])],
  ]);
  const halves = make("div", { class: "halves" }), shape = quantiles ? [histogram(row, stats), quantileTable(row, quantiles)] : [];
  // Histogram and quantiles stand one under the other if there is a heat map beside them.
  if (tensors.stats.heat[row]) halves.append(make("div", { class: "stacked" }, ...shape), heatFigure(row));
  else halves.append(...shape);
  return [make("h3", {}, "Values"), numbers, halves];
}
function oddNumber(count) {
  return make("span", { class: count ? "odd" : "" }, count.toLocaleString("en"));
}
function histogram(row, stats) {
  const counts = binsOf(row), svg = makeSvg("svg", { class: "hist", viewBox: "0 0 640 190", preserveAspectRatio: "none", role: "img", "aria-label": `Histogram from ${numberText(stats[0])} to ${numberText(stats[1])}` });
  counts.forEach((count, place) => {
    if (!count) return;
    const height = Math.max(1.5, (count / 255) * 180);
    svg.append(makeSvg("rect", { x: place * 10 + 0.5, y: 188 - height, width: 9, height }));
  });
  svg.append(makeSvg("line", { x1: 0, x2: 640, y1: 188.5, y2: 188.5 }));
  const ends = make("div", { class: "ends", "aria-hidden": "true" }, ...[stats[0], (stats[0] + stats[1]) / 2, stats[1]].map((end) => make("span", {}, numberText(end))));
  return make("figure", {}, svg, ends, make("figcaption", {}, `How many values lie in each of ${BINS} ranges between min and max`));
}
function quantileTable(row, quantiles) {
  const exact = tensors.stats.exact[measured.get(row)] ? "exact" : "to 0.8% of the value";
  const rows = quantiles.map((value, place) => make("tr", {}, make("th", { scope: "row" }, QUANTILES[place]), make("td", {}, numberText(value))));
  return make("figure", {}, make("table", { class: "plain" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Share below"), make("th", { scope: "col" }, "Value"))), make("tbody", {}, ...rows)), make("figcaption", {}, "Quantiles, " + exact));
}
function heatFigure(row) {
  const [rows, columns, low, high, tall, wide] = tensors.stats.heat[row];
  const canvas = make("canvas", { class: "heat", id: "heat", role: "img", "aria-label": `Means of ${rows} by ${columns} blocks of the matrix` });
  const keys = make("div", { class: "legend" }, ...[0, 0.25, 0.5, 0.75, 0.99].map((share) => swatch(ramp(share), numberText(low + (high - low) * Math.round(share * 4) / 4))), swatch("#ff00c8", "NaN"));
  return make("figure", {}, canvas, keys, make("figcaption", {}, `Heat map: ${tall.toLocaleString("en")} × ${wide.toLocaleString("en")} elements as the means of ${rows} × ${columns} blocks`));
}
function drawHeat(row) {
  const canvas = find("heat");
  if (!canvas) return;
  const [rows, columns, , , , , text] = tensors.stats.heat[row], levels = decode(text);
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  levels.forEach((level, place) => {
    context.fillStyle = level === 0 ? "#ff00c8" : ramp((level - 1) / 254);
    context.fillRect(place % columns, Math.floor(place / columns), 1, 1);
  });
}
function startDetail() {
  const dialog = find("detail");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    if (opener && opener.isConnected) opener.focus();
    else if (find("table").tBodies[0].rows.length) focusRow(false);
  });
}
function tensorLink(row, text) {
  if (row < 0) return make("span", {}, named(text));
  return make("button", { type: "button", class: "link", onclick: () => openDetail(row) }, named(text));
}
// A name may be nothing, or blanks alone: then quotes show it.
const named = (text) => (text.trim() ? text : JSON.stringify(text));
