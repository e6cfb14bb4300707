// Layers and optimizers, the theme, and the start of everything.
const MOST_CARDS = 400;
function startModel() {
  const layers = page.model.layers, optimizers = page.model.optimizers;
  if (layers.length) {
    const cards = layers.slice(0, MOST_CARDS).map((layer) => make("div", { class: "card" }, make("strong", {}, named(layer.name)), layer.kind ? make("span", { class: "where" }, " " + layer.kind) : null, weightList(layer.rows)));
    const more = layers.length > MOST_CARDS ? make("p", { class: "note" }, `… and ${layers.length - MOST_CARDS} more layers`) : null;
    find("layers").append(make("h3", {}, `Layers (${layers.length})`), make("div", { class: "cards" }, ...cards), more || "");
    find("layers").hidden = false;
  }
  for (const optimizer of optimizers) find("optimizers").append(...optimizerParts(optimizer));
  if (optimizers.length) find("optimizers").hidden = false;
}
function weightList(rows) {
  return make("ul", {}, ...rows.map((row) => make("li", {}, tensorLink(row, (tensors.alias[row] || tensors.name[row]).split("/").pop()), ` ${typeOf(row)} ${shapeText(tensors.shape[row])} `, isDamaged(row) ? swatch(stateColour(stateOf(row)), stateOf(row)) : "")));
}
function optimizerParts(optimizer) {
  const said = [optimizer.iterations === null ? null : `iterations ${optimizer.iterations.toLocaleString("en")}`, optimizer.rate === null ? null : `learning rate ${optimizer.rate}`, `slots of ${optimizer.slots.length} variables`].filter(Boolean).join("; ");
  const rows = optimizer.slots.slice(0, MOST_CARDS).map(([variable, slots]) => make("div", { class: "card" }, make("strong", {}, variable), make("ul", {}, ...slots.map(([slot, row]) => make("li", {}, tensorLink(row, slot), row < 0 ? "" : ` ${shapeText(tensors.shape[row])}`)))));
  return [make("h3", {}, "Optimizer" + (optimizer.name.toLowerCase() === "optimizer" ? "" : " " + optimizer.name)), make("p", {}, said), make("details", {}, make("summary", {}, "Slots"), make("div", { class: "cards" }, ...rows))];
}
const THEMES = [["", "◐ auto", "as the system"], ["light", "☀ light", "light"], ["dark", "☾ dark", "dark"]];
function startTheme() {
  const button = find("theme");
  let chosen = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % THEMES.length;
    const [name, text, words] = THEMES[chosen];
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    button.textContent = text;
    button.setAttribute("aria-label", "Colours: " + words);
    redrawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
}
for (const section of document.querySelectorAll("section.scripted")) section.hidden = false;
if (!total) for (const id of ["map", "tensors"]) find(id).hidden = true;
startTheme();
startDetail();
if (total) {
  startTable();
  startMap();
}
startFiles();
startModel();
startUses();
document.documentElement.dataset.ready = "yes";
