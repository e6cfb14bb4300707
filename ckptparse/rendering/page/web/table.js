// The table of tensors: only the rows in sight are in the document.
const ROW = 30;
const COLUMNS = [
  { title: "Name", width: "auto", cell: nameCell, text: (row) => named(tensors.name[row]), key: (row) => tensors.name[row] },
  { title: "Type", width: "5.2rem", text: typeOf, key: typeOf },
  { title: "Shape", width: "6.6rem", text: (row) => shapeText(tensors.shape[row]), key: (row) => elementsOf(tensors.shape[row]) },
  { title: "Size", width: "5.2rem", number: true, text: (row) => sizeText(tensors.bytes[row]), key: (row) => tensors.bytes[row] },
  { title: "State", width: "6.2rem", text: stateOf, key: (row) => [...STATES, ...Object.keys(BECAME)].indexOf(stateOf(row)) },
  { title: "Kind", width: "5rem", text: roleOf, key: roleOf },
  { title: "Values", width: "98px", cell: (row) => miniature(row), key: (row) => (statsOf(row) ? statsOf(row)[1] - statsOf(row)[0] : null) },
  ...["Min", "Max", "Mean", "Std"].map((title, place) => ({ title, width: "4.8rem", number: true, text: (row) => statsOf(row) && numberText(statsOf(row)[place], 3, 1e-2), key: (row) => statsOf(row) && statsOf(row)[place] })),
  { title: "Zeros", width: "4rem", number: true, text: (row) => statsOf(row) && shareText(statsOf(row)[5], statsOf(row)[4]), key: (row) => statsOf(row) && statsOf(row)[5] / (statsOf(row)[4] || 1) },
  { title: "NaN", width: "3.4rem", number: true, odd: (row) => statsOf(row) && statsOf(row)[6] > 0, text: (row) => statsOf(row) && numberText(statsOf(row)[6]), key: (row) => statsOf(row) && statsOf(row)[6] },
  { title: "Inf", width: "3.4rem", number: true, odd: (row) => statsOf(row) && statsOf(row)[7] > 0, text: (row) => statsOf(row) && numberText(statsOf(row)[7]), key: (row) => statsOf(row) && statsOf(row)[7] },
];
if (page.compared) {
  COLUMNS.splice(6, 0,
    { title: "Largest change", width: "7.6rem", number: true, text: (row) => changeOf(row) && numberText(changeOf(row).largest, 3), key: (row) => changeOf(row) && (changeOf(row).largest ?? null) },
    { title: "Changed", width: "5rem", number: true, text: (row) => changeOf(row) && (changeOf(row).share === undefined || changeOf(row).share === null ? "–" : shareText(changeOf(row).share, 1)), key: (row) => changeOf(row) && (changeOf(row).share ?? null) });
}
const table = { rows: [...Array(total).keys()], sorted: null, falling: false, first: -1, active: 0 };

// Of a long name the end tells more than the beginning, so that is what is cut.
function nameCell(row) {
  const name = named(tensors.name[row]), cut = name.lastIndexOf("/") + 1;
  return make("span", { class: "name" }, make("span", {}, name.slice(0, cut)), make("span", {}, name.slice(cut)));
}
function shareText(part, whole) {
  if (!whole) return "–";
  const share = (100 * part) / whole;
  return part === 0 ? "0" : share < 0.1 ? "<0.1%" : share.toFixed(share < 10 ? 1 : 0) + "%";
}
function miniature(row) {
  if (!measured.has(row)) return document.createTextNode("");
  const counts = binsOf(row), width = 88 / 22;
  let path = "";
  for (let i = 0; i < 22; i++) {
    let most = 0;
    for (let j = Math.floor((i * BINS) / 22); j < Math.floor(((i + 1) * BINS) / 22); j++) most = Math.max(most, counts[j]);
    const height = most === 0 ? 0 : Math.max(1, (most / 255) * 21);
    path += `M${(i * width).toFixed(1)} 22v-${height.toFixed(1)}h${width - 0.5}v${height.toFixed(1)}z`;
  }
  return makeSvg("svg", { class: "mini", viewBox: "0 0 88 22", "aria-hidden": "true" }, makeSvg("path", { d: path }));
}
function makeHead() {
  const head = find("table").tHead.rows[0];
  COLUMNS.forEach((column, number) => {
    const button = make("button", { type: "button", onclick: () => sortBy(number) }, column.title);
    const cell = make("th", { scope: "col", class: column.number ? "num" : "" }, button);
    cell.style.width = column.width;
    head.append(cell);
  });
}
function sortBy(number) {
  table.falling = table.sorted === number ? !table.falling : Boolean(COLUMNS[number].number);
  table.sorted = number;
  [...find("table").tHead.rows[0].cells].forEach((cell, place) => {
    if (place === number) cell.setAttribute("aria-sort", table.falling ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
    cell.firstChild.textContent = COLUMNS[place].title + (place === number ? (table.falling ? " ↓" : " ↑") : "");
  });
  choose();
  say(`Sorted by ${COLUMNS[number].title}, ${table.falling ? "largest first" : "smallest first"}`);
}
// Keeps the rows that match all that is asked for, in the order that is asked for.
function choose() {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [state, role, type] = ["state", "role", "dtype"].map((name) => find("filter-" + name).value);
  const odd = find("filter-odd").checked;
  const rows = [];
  for (let row = 0; row < total; row++) {
    if ((state && stateOf(row) !== state) || (role && roleOf(row) !== role) || (type && typeOf(row) !== type)) continue;
    if (odd && !isOdd(row)) continue;
    if (words.length) {
      const name = (tensors.name[row] + " " + (tensors.alias[row] || "")).toLowerCase();
      if (!words.every((word) => name.includes(word))) continue;
    }
    rows.push(row);
  }
  if (table.sorted !== null) sortRows(rows);
  table.rows = rows;
  table.active = 0;
  table.first = -1;
  find("table-box").scrollTop = 0;
  const bytes = rows.reduce((sum, row) => sum + tensors.bytes[row], 0);
  find("found").textContent = `${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")} tensors, ${sizeText(bytes)}`;
  find("table-box").style.height = `min(70vh, 46rem, ${(rows.length + 1) * ROW + 20}px)`;
  find("table").setAttribute("aria-rowcount", rows.length + 1);
  drawRows();
}
function sortRows(rows) {
  const key = COLUMNS[table.sorted].key, keys = new Map(rows.map((row) => [row, key(row)]));
  const sign = table.falling ? -1 : 1;
  rows.sort((a, b) => {
    const x = keys.get(a), y = keys.get(b);
    // What has no value comes last, whichever way the rest is sorted.
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return sign * (typeof x === "string" ? (x < y ? -1 : x > y ? 1 : 0) : x - y) || a - b;
  });
}
function drawRows() {
  const box = find("table-box"), body = find("table").tBodies[0];
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
  const count = Math.ceil(box.clientHeight / ROW) + 16;
  if (first === table.first) return;
  const held = body.contains(document.activeElement);
  table.first = first;
  const last = Math.min(table.rows.length, first + count);
  const parts = [spacer(first)];
  for (let place = first; place < last; place++) parts.push(makeRow(place));
  parts.push(spacer(table.rows.length - last));
  body.replaceChildren(...parts);
  if (held) focusRow(false);
}
function spacer(count) {
  const row = make("tr", { class: "spacer", "aria-hidden": "true" }, make("td", { colSpan: COLUMNS.length }));
  row.style.height = count * ROW + "px";
  return row;
}
function makeRow(place) {
  const row = table.rows[place];
  const cells = COLUMNS.map((column, number) => {
    const text = column.cell ? null : column.text(row);
    const cell = make("td", { class: (column.number ? "num" : "") + (column.odd && column.odd(row) ? " odd" : "") }, column.cell ? column.cell(row) : text === null ? "" : text);
    if (number === 0) cell.title = tensors.name[row] + (tensors.alias[row] ? "\n" + tensors.alias[row] : "");
    if (column.title === "State") {
      cell.replaceChildren(swatch(stateColour(stateOf(row)), stateOf(row)));
      if (isDamaged(row)) cell.className = "odd";
    }
    return cell;
  });
  return make("tr", { tabIndex: place === table.active ? 0 : -1, "aria-rowindex": place + 2, onclick: () => openDetail(row), onfocus: () => (table.active = place) }, ...cells);
}
function rowElement(place) {
  return find("table").tBodies[0].querySelector(`tr[aria-rowindex="${place + 2}"]`);
}
function focusRow(scroll) {
  const box = find("table-box"), top = table.active * ROW;
  if (scroll) {
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + 2 * ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + 2 * ROW - box.clientHeight;
    drawRows();
  }
  const element = rowElement(table.active);
  if (element) {
    for (const other of element.parentNode.children) other.tabIndex = -1;
    element.tabIndex = 0;
    element.focus({ preventScroll: true });
  }
}
function moveInTable(event) {
  if (!event.target.matches("tbody tr")) return;
  const sight = Math.max(1, Math.floor(find("table-box").clientHeight / ROW) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: sight, PageUp: -sight, Home: -total, End: total };
  if (event.key === "Enter" || event.key === " ") openDetail(table.rows[table.active]);
  else if (event.key in steps) {
    table.active = Math.max(0, Math.min(table.rows.length - 1, table.active + steps[event.key]));
    focusRow(true);
  } else return;
  event.preventDefault();
}
function fillFilter(id, values, all) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  find(id).append(make("option", { value: "" }, all));
  for (const [value, count] of counts) find(id).append(make("option", { value }, `${value} (${count})`));
  find(id).addEventListener("change", choose);
}
function startTable() {
  makeHead();
  const rows = [...Array(total).keys()];
  fillFilter("filter-state", rows.map(stateOf), "all");
  fillFilter("filter-role", rows.map(roleOf), "all");
  fillFilter("filter-dtype", rows.map(typeOf), "all");
  find("search").addEventListener("input", choose);
  find("filter-odd").addEventListener("change", choose);
  find("table-box").addEventListener("scroll", drawRows, { passive: true });
  find("table").addEventListener("keydown", moveInTable);
  addEventListener("resize", () => ((table.first = -1), drawRows()));
  REDRAWN.push(() => ((table.first = -1), drawRows()));
  // A printer sees no scrolling: it gets the rows themselves, unless that were a book.
  addEventListener("beforeprint", () => find("table").tBodies[0].replaceChildren(...table.rows.slice(0, 1000).map((_, place) => makeRow(place))));
  addEventListener("afterprint", () => ((table.first = -1), drawRows()));
  choose();
}
