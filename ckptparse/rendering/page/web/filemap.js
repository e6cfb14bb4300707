// The files: what each range of bytes is, and which tensor lies there.
const KINDS = {
  verified: "verified", patched: "mended", bad: "bad", unverified: "no proof", zeros: "zeros where data should be",
  unreferenced: "nothing refers to it", absent: "not there", unknown: "not checked",
};
const MOST_FILES = 30;

function startFiles() {
  const list = find("files-list");
  if (!list) return;
  const placed = new Map(page.files.map((_, number) => [number, []]));
  tensors.place.forEach((place, row) => place && placed.get(place[0]).push(row));
  for (const rows of placed.values()) rows.sort((a, b) => tensors.place[a][1] - tensors.place[b][1]);
  const order = page.files.map((_, number) => number).sort((a, b) => Number(isBroken(page.files[b])) - Number(isBroken(page.files[a])) || a - b);
  const shown = order.slice(0, MOST_FILES), rest = order.slice(MOST_FILES);
  list.append(...shown.map((number) => fileMap(page.files[number], placed.get(number))));
  if (rest.length) {
    const more = make("button", { type: "button", onclick: () => more.replaceWith(...rest.map((number) => fileMap(page.files[number], placed.get(number)))) }, `Show ${rest.length} more files`);
    list.append(more);
  }
  const seen = new Set(page.files.flatMap((file) => (file.ranges.length ? file.ranges.map((range) => range[2]) : ["unknown"])));
  const draw = () => find("files-legend").replaceChildren(...Object.keys(KINDS).filter((kind) => seen.has(kind)).map((kind) => swatch(colour(kind), KINDS[kind])));
  REDRAWN.push(draw);
  draw();
}
const isBroken = (file) => file.size === null || file.ranges.some((range) => ["bad", "zeros", "absent"].includes(range[2]));

function fileMap(file, rows) {
  const extent = Math.max(file.size || 0, ...file.ranges.map((range) => range[1]), 1);
  const canvas = make("canvas", { tabIndex: 0, role: "img", "aria-label": fileText(file, rows) });
  const under = make("p", { class: "note under" });
  const size = file.size === null ? "not there" : sizeText(file.size);
  const told = [file.role === "file" ? null : file.role, size, rows.length ? `${rows.length.toLocaleString("en")} tensor${rows.length === 1 ? "" : "s"}` : null];
  const head = make("h3", {}, file.path, make("span", { class: "where" }, "  " + told.filter(Boolean).join(", ")));
  const box = make("div", { class: "file" }, head, make("div", { class: "bar" }, canvas), under);
  const view = { from: 0, to: extent, at: null };
  const draw = () => drawFile(canvas, file, rows, view);
  const byteAt = (event) => {
    const area = canvas.getBoundingClientRect();
    return view.from + ((event.clientX - area.left) / area.width) * (view.to - view.from);
  };
  const tell = (byte) => {
    view.at = byte;
    under.textContent = byteText(file, rows, byte);
    draw();
  };
  watchFile(canvas, { view, extent, draw, byteAt, tell, rows });
  new ResizeObserver(draw).observe(canvas);
  REDRAWN.push(draw);
  return box;
}
function watchFile(canvas, { view, extent, draw, byteAt, tell, rows }) {
  let drag = null;
  const zoom = (factor, around) => {
    const width = Math.min(extent, Math.max(16, (view.to - view.from) * factor));
    const share = (around - view.from) / (view.to - view.from);
    view.from = Math.max(0, Math.min(extent - width, around - share * width));
    view.to = view.from + width;
    draw();
  };
  const move = (bytes) => {
    const width = view.to - view.from;
    view.from = Math.max(0, Math.min(extent - width, view.from + bytes));
    view.to = view.from + width;
    draw();
  };
  canvas.addEventListener("wheel", (event) => {
    // Without a key the wheel scrolls the page, as everywhere.
    if (!event.ctrlKey && !event.shiftKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, byteAt(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => (drag = { x: event.clientX, moved: false }));
  canvas.addEventListener("pointermove", (event) => {
    if (drag && event.buttons) {
      const bytes = ((drag.x - event.clientX) / canvas.clientWidth) * (view.to - view.from);
      if (Math.abs(drag.x - event.clientX) > 3) drag.moved = true;
      if (drag.moved) {
        drag.x = event.clientX;
        move(bytes);
      }
    }
    tell(byteAt(event));
  });
  canvas.addEventListener("click", (event) => {
    const row = rowAt(rows, byteAt(event));
    if (!(drag && drag.moved) && row !== null) openDetail(row);
    drag = null;
  });
  canvas.addEventListener("dblclick", (event) => zoom(0.25, byteAt(event)));
  canvas.addEventListener("keydown", (event) => {
    const middle = view.at ?? (view.from + view.to) / 2, step = (view.to - view.from) / 20;
    if (event.key === "+" || event.key === "=") zoom(0.5, middle);
    else if (event.key === "-") zoom(2, middle);
    else if (event.key === "0") ((view.from = 0), (view.to = extent), draw());
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const next = Math.max(0, Math.min(extent - 1, (view.at ?? view.from) + (event.key === "ArrowRight" ? step : -step)));
      if (next > view.to || next < view.from) move(next > view.to ? step : -step);
      tell(next);
      say(canvas.parentNode.nextSibling.textContent);
    } else if (event.key === "Enter" && rowAt(rows, view.at ?? -1) !== null) openDetail(rowAt(rows, view.at));
    else return;
    event.preventDefault();
  });
}
function fileText(file, rows) {
  const sizes = new Map();
  for (const [start, stop, kind] of file.ranges) sizes.set(kind, (sizes.get(kind) || 0) + stop - start);
  const told = [...sizes].map(([kind, bytes]) => `${sizeText(bytes)} ${KINDS[kind] || kind}`).join(", ");
  return `${file.path}: ${told || "not checked"}; ${rows.length} tensors`;
}
function byteText(file, rows, byte) {
  const range = file.ranges.find((part) => byte >= part[0] && byte < part[1]);
  const row = rowAt(rows, byte);
  const kind = range ? KINDS[range[2]] || range[2] : "not checked";
  return `byte ${Math.floor(byte).toLocaleString("en")}: ${kind}${row === null ? "" : "; " + tensors.name[row] + " " + shapeText(tensors.shape[row])}`;
}
// The tensor whose bytes hold that one; rows are in the order of their places.
function rowAt(rows, byte) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tensors.place[rows[middle]][1] <= byte) low = middle + 1;
    else high = middle;
  }
  const row = low ? rows[low - 1] : null;
  return row !== null && byte < tensors.place[row][1] + tensors.place[row][2] ? row : null;
}
function drawFile(canvas, file, rows, view) {
  const [context, width, height] = prepare(canvas);
  const at = (byte) => ((byte - view.from) / (view.to - view.from)) * width;
  context.fillStyle = colour("unknown");
  context.fillRect(0, 0, width, height);
  const ordinary = [], notable = [];
  for (const range of file.ranges) if (range[1] > view.from && range[0] < view.to) (["verified", "unreferenced", "unverified"].includes(range[2]) ? ordinary : notable).push(range);
  // What is notable comes last, and is never thinner than can be seen.
  for (const [start, stop, kind] of ordinary) fillRange(context, at(start), at(stop), height, colour(kind), 0.5);
  for (const [start, stop, kind] of notable) fillRange(context, at(start), at(stop), height, colour(kind), 3);
  drawBounds(context, rows, view, at, height);
  if (view.at !== null) fillRange(context, at(view.at) - 1, at(view.at) + 1, height, colour("mark"), 2);
}
function fillRange(context, from, to, height, fill, least) {
  context.fillStyle = fill;
  context.fillRect(from, 0, Math.max(least, to - from), height);
}
function drawBounds(context, rows, view, at, height) {
  context.fillStyle = colour("edge");
  let last = -9;
  for (const row of rows) {
    const x = at(tensors.place[row][1]);
    if (x > last + 4 && tensors.place[row][1] > view.from && tensors.place[row][1] < view.to) {
      context.fillRect(x, height - 9, 1, 9);
      last = x;
    }
  }
}
