// The map of tensors. Layout by d3-hierarchy, drawn on a canvas: ten thousand boxes at once.
const map = { root: null, shown: null, leaves: [], focus: -1, values: null };
const GROUPS = {
  scope: { title: "scope", path: (row) => (tensors.alias[row] || tensors.name[row]).split("/") },
  object: { title: "object", path: (row) => tensors.name[row].split("/") },
  layer: { title: "layer", path: (row) => [layerOf.has(row) ? page.model.layers[layerOf.get(row)].name : "(no layer)", tensors.name[row]] },
};
const MEASURES = {
  min: ["smallest value", (s) => s[0]], max: ["largest value", (s) => s[1]], mean: ["mean", (s) => s[2]], std: ["standard deviation", (s) => s[3]],
  zeros: ["share of zeros", (s) => s[5] / (s[4] || 1)], odd: ["share of NaN and infinite", (s) => (s[6] + s[7]) / (s[4] || 1)],
};
const CHANGES = { largest: ["largest change", (change) => change.largest], share: ["share of elements changed", (change) => change.share] };
const LABEL = 17;
const DEEPEST = 4;

// Labels grow with the text of the page.
const textSize = (size) => `${(size * parseFloat(getComputedStyle(document.body).fontSize)) / 15}px system-ui,sans-serif`;

function buildMap() {
  const path = GROUPS[find("map-group").value].path, root = { name: "", children: new Map() };
  for (let row = 0; row < total; row++) {
    let at = root;
    const parts = path(row);
    parts.slice(0, -1).forEach((part) => {
      if (!at.children.has(part)) at.children.set(part, { name: part, children: new Map() });
      at = at.children.get(part);
    });
    // Several tensors may end in one name: of slots, or of names that are cut.
    at.children.set(parts[parts.length - 1] + "\u0000" + row, { name: parts[parts.length - 1], row });
  }
  const bytes = tensors.bytes.reduce((a, b) => a + b, 0);
  // Small tensors get a share of a twentieth of the map, or a scalar would not be seen.
  const least = Math.max(1, bytes) / (20 * Math.max(1, total));
  map.root = d3.hierarchy(squeeze(root), (node) => (node.children ? [...node.children.values()] : null))
    .sum((node) => (node.row === undefined ? 0 : tensors.bytes[node.row] + least))
    .sort((a, b) => b.value - a.value);
  map.root.eachAfter((node) => (node.damaged = node.children ? node.children.reduce((sum, child) => sum + child.damaged, 0) : Number(isDamaged(node.data.row))));
  goTo(map.root);
}
// Joins groups that hold a single group: a label each would say little.
function squeeze(node) {
  if (!node.children) return node;
  node.children = new Map([...node.children].map(([key, child]) => [key, squeeze(child)]));
  const only = node.children.size === 1 ? [...node.children.values()][0] : null;
  if (only && only.children) return { name: node.name ? node.name + "/" + only.name : only.name, children: only.children };
  return node;
}
function goTo(node) {
  map.shown = node;
  map.focus = -1;
  const trail = node.ancestors().reverse();
  find("map-where").replaceChildren(...trail.map((step) => make("button", { type: "button", onclick: () => goTo(step) }, step.data.name || "all")).flatMap((item, place) => (place ? [" / ", item] : [item])));
  find("map-up").disabled = node.parent === null;
  drawMap();
}
function layOut(width, height) {
  const copy = d3.hierarchy(map.shown, (node) => node.children || null).sum((node) => (node.children ? 0 : node.value));
  d3.treemap().size([width, height]).round(false).paddingInner(copy.leaves().length > 3000 ? 0 : 1).paddingTop((node) => (node.depth > 0 && node.depth <= DEEPEST && node.children && node.value / copy.value > 0.004 * node.depth ? LABEL : 0))(copy);
  return copy;
}
function drawMap() {
  const canvas = find("map-canvas"), [context, width, height] = prepare(canvas);
  if (width < 2) return;
  const began = performance.now();
  const laid = layOut(width, height);
  map.leaves = laid.leaves().filter((leaf) => leaf.data.data.row !== undefined).map((leaf) => ({ row: leaf.data.data.row, x: leaf.x0, y: leaf.y0, w: leaf.x1 - leaf.x0, h: leaf.y1 - leaf.y0 }));
  map.groups = laid.descendants().filter((node) => node.children && node.depth > 0 && node.depth <= DEEPEST);
  const fill = filler();
  context.fillStyle = colour("panel");
  context.fillRect(0, 0, width, height);
  // Half a pixel at least: none of ten thousand vanishes.
  for (const leaf of map.leaves) {
    context.fillStyle = fill(leaf.row);
    context.fillRect(leaf.x, leaf.y, Math.max(leaf.w, 0.5), Math.max(leaf.h, 0.5));
  }
  frameGroups(context);
  for (const leaf of map.leaves) if (isDamaged(leaf.row)) markDamaged(context, leaf, fill(leaf.row));
  labelGroups(context);
  labelLeaves(context);
  if (map.focus >= 0) ring(context, map.leaves[map.focus]);
  map.took = performance.now() - began;
  canvas.dataset.leaves = map.leaves.length;
  canvas.dataset.took = map.took.toFixed(1);
  canvas.setAttribute("aria-label", `Map of ${map.leaves.length} tensors by size, ${map.shown.damaged} of them damaged`);
}
function frameGroups(context) {
  context.strokeStyle = colour("edge");
  for (const node of map.groups) {
    if (node.x1 - node.x0 < 6 || node.y1 - node.y0 < 6) continue;
    context.lineWidth = node.depth === 1 ? 2 : 1;
    context.strokeRect(node.x0, node.y0, node.x1 - node.x0, node.y1 - node.y0);
  }
}
function markDamaged(context, leaf, fill) {
  const w = Math.max(leaf.w, 7), h = Math.max(leaf.h, 7);
  const x = leaf.x - (w - leaf.w) / 2, y = leaf.y - (h - leaf.h) / 2;
  context.fillStyle = fill;
  context.fillRect(x, y, w, h);
  // A mark that needs no colour: a frame, and a corner that is filled.
  context.strokeStyle = context.fillStyle = colour("mark");
  context.lineWidth = 2;
  context.strokeRect(x + 1, y + 1, w - 2, h - 2);
  const corner = Math.min(w, h, 40) / 2;
  if (corner < 6) return;
  context.beginPath();
  context.moveTo(x + w - corner, y);
  context.lineTo(x + w, y);
  context.lineTo(x + w, y + corner);
  context.fill();
}
function labelGroups(context) {
  for (const node of map.groups) {
    const w = node.x1 - node.x0;
    if (node.children[0].y0 - node.y0 < LABEL - 1 || w < 24) continue;
    context.fillStyle = colour("bg");
    context.fillRect(node.x0, node.y0, w - 1, LABEL - 1);
    context.fillStyle = colour("text");
    context.font = (node.depth === 1 ? "600 " : "") + textSize(12);
    write(context, node.data.data.name, node.x0 + 4, node.y0 + 12.5, w - 8);
  }
}
function labelLeaves(context) {
  context.font = textSize(11);
  for (const leaf of map.leaves) {
    if (leaf.w < 54 || leaf.h < 18) continue;
    context.fillStyle = inkOn(leaf.row);
    write(context, (tensors.alias[leaf.row] || tensors.name[leaf.row]).split("/").pop(), leaf.x + 4, leaf.y + 13, leaf.w - 8);
    if (leaf.h > 34) write(context, shapeText(tensors.shape[leaf.row]), leaf.x + 4, leaf.y + 27, leaf.w - 8);
    if (leaf.h > 50 && isDamaged(leaf.row)) write(context, stateOf(leaf.row), leaf.x + 4, leaf.y + 43, leaf.w - 8);
  }
}
// Black or white, whichever can be read on the colour of a box.
function inkOn(row) {
  const hex = filler()(row);
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}
function write(context, text, x, y, width) {
  let shown = text;
  if (context.measureText(shown).width > width) {
    let most = Math.max(1, Math.floor((shown.length * width) / context.measureText(shown).width) - 1);
    while (most > 1 && context.measureText(shown.slice(0, most) + "…").width > width) most--;
    shown = most > 1 ? shown.slice(0, most) + "…" : "";
  }
  context.fillText(shown, x, y);
}
function ring(context, leaf) {
  if (!leaf) return;
  context.strokeStyle = colour("mark");
  context.lineWidth = 3;
  context.strokeRect(leaf.x - 1.5, leaf.y - 1.5, Math.max(leaf.w, 4) + 3, Math.max(leaf.h, 4) + 3);
}
function filler() {
  const by = find("map-colour").value;
  if (map.filled && map.filled.by === by && map.filled.colours === colours) return map.filled.fill;
  let fill;
  if (by === "state") fill = (row) => stateColour(stateOf(row));
  else if (by === "dtype" || by === "role") fill = (row) => categoryColour(tensors[by].rows[row]);
  else fill = measureFiller(by);
  map.filled = { by, fill, colours };
  return fill;
}
const CATEGORIES = ["#5b8ff0", "#e8a33d", "#4fae7c", "#c774c9", "#d96b5f", "#57b5c9", "#a99a3a", "#8f8fd8", "#b07f5c", "#8a94a3"];
const categoryColour = (number) => CATEGORIES[number % CATEGORIES.length];
// By rank, so that one outlier does not make all others look alike.
function measureFiller(by) {
  const [, of] = MEASURES[by] || CHANGES[by], source = MEASURES[by] ? statsOf : changeOf, known = [];
  const value = (row) => (source(row) ? (of(source(row)) ?? null) : null);
  for (let row = 0; row < total; row++) if (value(row) !== null) known.push(value(row));
  map.scale = [...new Set(known)].sort((a, b) => a - b);
  const rank = new Map(map.scale.map((item, place) => [item, place / Math.max(1, map.scale.length - 1)]));
  return (row) => {
    const found = value(row);
    return found === null ? colour("unknown") : ramp(rank.get(found) * 0.999);
  };
}
function drawLegend() {
  const by = find("map-colour").value, legend = find("map-legend");
  filler();
  if (by === "state") legend.replaceChildren(...countsOf(tensors.state).map(([name, count]) => swatch(stateColour(name), `${name} ${count.toLocaleString("en")}`)));
  else if (by === "dtype" || by === "role") legend.replaceChildren(...countsOf(tensors[by]).map(([name, count]) => swatch(categoryColour(tensors[by].values.indexOf(name)), `${name} ${count.toLocaleString("en")}`)));
  else {
    const steps = [0, 0.25, 0.5, 0.75, 1], scale = map.scale;
    legend.replaceChildren(...steps.map((share) => swatch(ramp(share * 0.999), scale.length ? numberText(scale[Math.round(share * (scale.length - 1))]) : "–")), swatch(colour("unknown"), "not measured"));
  }
}
function countsOf(column) {
  const counts = column.values.map((name) => [name, 0]);
  for (const number of column.rows) counts[number][1]++;
  return counts;
}
function leafAt(event) {
  const box = find("map-canvas").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  // What is drawn last lies on top: damaged boxes are enlarged.
  let found = -1;
  map.leaves.forEach((leaf, place) => {
    const more = isDamaged(leaf.row) ? 3.5 : 0;
    if (x >= leaf.x - more && x < leaf.x + leaf.w + more && y >= leaf.y - more && y < leaf.y + leaf.h + more && (found < 0 || more)) found = place;
  });
  return [found, x, y];
}
function groupAt(x, y) {
  // The label of a group is its handle.
  return map.groups.filter((node) => x >= node.x0 && x < node.x1 && y >= node.y0 && y < node.y0 + LABEL && node.children[0].y0 - node.y0 >= LABEL - 1).pop();
}
function leafText(row) {
  const by = find("map-colour").value;
  const lines = [tensors.name[row], `${typeOf(row)} ${shapeText(tensors.shape[row])}  ${sizeText(tensors.bytes[row])}  ${stateOf(row)}`];
  if (CHANGES[by] && changeOf(row)) lines.push(`${CHANGES[by][0]} ${numberText(CHANGES[by][1](changeOf(row)))}`);
  if (MEASURES[by] && statsOf(row)) lines.push(`${MEASURES[by][0]} ${numberText(MEASURES[by][1](statsOf(row)))}`);
  return lines.join("\n");
}
function moveInMap(event) {
  const count = map.leaves.length, damaged = (place) => isDamaged(map.leaves[place].row);
  if (event.key === "Enter" && map.focus >= 0) openDetail(map.leaves[map.focus].row);
  else if (event.key === "Backspace" && map.shown.parent) goTo(map.shown.parent);
  else if (event.key === "ArrowRight" || event.key === "ArrowDown") map.focus = Math.min(count - 1, map.focus + 1);
  else if (event.key === "ArrowLeft" || event.key === "ArrowUp") map.focus = Math.max(0, map.focus - 1);
  else if (event.key === "Home") map.focus = 0;
  else if (event.key === "End") map.focus = count - 1;
  else if (event.key === "d" || event.key === "D") {
    const order = [...Array(count).keys()].map((step) => (map.focus + 1 + step) % count);
    map.focus = order.find(damaged) ?? map.focus;
  } else return;
  event.preventDefault();
  if (map.focus >= 0) {
    drawMap();
    say(leafText(map.leaves[map.focus].row));
  }
}
function startMap() {
  const groups = Object.keys(tensors.alias).length ? ["scope", "object"] : ["scope"];
  if (layerOf.size) groups.push("layer");
  for (const name of groups) find("map-group").append(make("option", { value: name }, GROUPS[name].title));
  const colourings = [["state", "state"], ["dtype", "kind of element"], ["role", "variable, slot, average"]];
  if (page.compared) colourings.push(...Object.entries(CHANGES).map(([name, [title]]) => [name, title]));
  if (measured.size) colourings.push(...Object.entries(MEASURES).map(([name, [title]]) => [name, title]));
  for (const [name, title] of colourings) find("map-colour").append(make("option", { value: name }, title));
  find("map-group").addEventListener("change", buildMap);
  find("map-colour").addEventListener("change", () => (drawMap(), drawLegend()));
  find("map-up").addEventListener("click", () => map.shown.parent && goTo(map.shown.parent));
  const canvas = find("map-canvas");
  canvas.addEventListener("keydown", moveInMap);
  canvas.addEventListener("pointermove", (event) => {
    const [place, x, y] = leafAt(event), group = groupAt(x, y);
    canvas.style.cursor = group || place >= 0 ? "pointer" : "default";
    if (group) showTip(event, `${group.data.data.name}\n${group.data.leaves().length} tensors, ${group.data.damaged} damaged; click to go in`);
    else if (place >= 0) showTip(event, leafText(map.leaves[place].row));
    else hideTip();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const [place, x, y] = leafAt(event), group = groupAt(x, y);
    hideTip();
    if (group) goTo(group.data);
    else if (place >= 0) openDetail(map.leaves[place].row);
  });
  new ResizeObserver(() => map.shown && drawMap()).observe(find("map-box"));
  REDRAWN.push(() => (drawMap(), drawLegend()));
  buildMap();
  drawLegend();
}
