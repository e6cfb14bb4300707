// Variables and who uses them, laid out by dagre when asked for.
function startUses() {
  const button = find("uses-draw");
  if (!button) return;
  find("uses-said").textContent = usesText();
  button.addEventListener("click", drawUses);
}
function usesText() {
  const nodes = page.uses.nodes, count = (kind) => nodes.filter((node) => node[0] === kind).length;
  const more = page.uses.more ? `; ${page.uses.more} more are left out` : "";
  const all = count("variable") + count("shared"), scopes = count("scope");
  return `${all} variable${all === 1 ? "" : "s"}, ${count("shared")} used by several; ${scopes} scope${scopes === 1 ? "" : "s"}${more}`;
}
function drawUses() {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 14, ranksep: 34, marginx: 12, marginy: 12 });
  graph.setDefaultEdgeLabel(() => ({}));
  page.uses.nodes.forEach((node, number) => {
    const text = shorten(node[1], 34);
    graph.setNode(String(number), { width: Math.max(40, text.length * 6.9 + 16), height: 26, text });
  });
  for (const [from, to] of page.uses.edges) graph.setEdge(String(from), String(to));
  dagre.layout(graph);
  find("uses-box").hidden = false;
  find("uses-box").replaceChildren(usesSvg(graph));
  find("uses-draw").textContent = "Draw again";
  find("uses-search").disabled = false;
  find("uses-search").addEventListener("input", findInUses);
}
const shorten = (text, most) => (text.length > most ? "…" + text.slice(1 - most) : text);

function usesSvg(graph) {
  const { width, height } = graph.graph();
  const svg = makeSvg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Variables and who uses them" });
  const tip = makeSvg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" }, makeSvg("path", { d: "M0 1L7 4L0 7" }));
  svg.append(makeSvg("defs", {}, tip));
  for (const edge of graph.edges()) {
    const points = graph.edge(edge).points.map((point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`);
    svg.append(makeSvg("path", { d: "M" + points.join("L"), "data-from": edge.v, "data-to": edge.w, "marker-end": "url(#arrow)" }));
  }
  for (const name of graph.nodes()) svg.append(usesNode(graph, name));
  svg.addEventListener("click", (event) => event.target === svg && pickUse(null));
  return svg;
}
function usesNode(graph, name) {
  const { x, y, width, height, text } = graph.node(name), [kind, whole, where] = page.uses.nodes[name];
  const words = { variable: "variable", shared: "variable of several users", scope: "scope" }[kind];
  const group = makeSvg("g", { class: `node ${kind}`, tabindex: 0, role: "button", "data-node": name, "aria-label": `${words} ${whole}${where ? " in function " + where : ""}; ${neighbours(name).length} neighbours` },
    makeSvg("title", {}, `${words} ${whole}${where ? "\nin function " + where : ""}`),
    makeSvg("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: kind === "scope" ? 3 : 12 }),
    makeSvg("text", { x, y: y + 4, "text-anchor": "middle" }, text));
  group.addEventListener("click", () => pickUse(name));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pickUse(name);
  });
  return group;
}
function neighbours(name) {
  const number = Number(name);
  return page.uses.edges.filter((edge) => edge.includes(number)).map((edge) => (edge[0] === number ? edge[1] : edge[0]));
}
// Shows one box with its neighbours, and all others pale; null shows all alike.
function pickUse(name) {
  const near = name === null ? null : new Set([name, ...neighbours(name).map(String)]);
  for (const element of find("uses-box").querySelectorAll("[data-node]")) {
    element.classList.toggle("far", near !== null && !near.has(element.dataset.node));
    element.classList.toggle("picked", element.dataset.node === name);
  }
  for (const element of find("uses-box").querySelectorAll("[data-from]")) element.classList.toggle("far", near !== null && element.dataset.from !== name && element.dataset.to !== name);
  if (name === null) find("uses-said").textContent = usesText();
  else {
    const names = neighbours(name).map((other) => page.uses.nodes[other][1]);
    find("uses-said").textContent = `${page.uses.nodes[name][1]}: ${names.length} neighbours: ${names.slice(0, 12).join(", ")}${names.length > 12 ? " …" : ""}`;
  }
}
function findInUses(event) {
  const word = event.target.value.toLowerCase();
  const number = word ? page.uses.nodes.findIndex((node) => node[1].toLowerCase().includes(word)) : -1;
  pickUse(number < 0 ? null : String(number));
  const element = number < 0 ? null : find("uses-box").querySelector(`[data-node="${number}"]`);
  if (element) element.scrollIntoView({ block: "nearest", inline: "center" });
}
