// The atlas: one layer's units as cards, sorted and filtered, and its plot.

const SORTS = [
  ["unit", "number"], ["firing", "firing rate"], ["max", "maximum"], ["specificity", "specificity"],
  ...(data.baseline ? [["psi", "drift (PSI)"], ["ks", "drift (KS)"]] : []),
];
const STATES = [
  ["all", "All", () => true],
  ["live", "Live", (unit) => unit.state === "live"],
  ["dead", "Dead", (unit) => unit.state === "dead"],
  ["always-on", "Always on", (unit) => unit.state === "always-on"],
  ...(data.baseline ? [["drifted", "Drifted", (unit) => unit.drifted]] : []),
];
const DRAWN_AT_ONCE = 24;

let currentLayer = null;
let state = "all";
let displayed = []; // the units that the cards show, in their order
let drawing = 0;
const cardsByUnit = new Map();

function showLayer(layer) {
  const arrived = currentLayer !== layer;
  currentLayer = layer;
  for (const link of byId("layers").children)
    if (link.dataset.layer === layer.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  byId("views").querySelector("[data-view=atlas]").href = `#/atlas/${layer.name}`;
  if (!arrived) return;
  if (!STATES.find(([name]) => name === state) || !unitsOf(layer).some(STATES.find(([name]) => name === state)[2]))
    state = "all";
  byId("listed").replaceChildren(...["dead", "always-on"].map((name) => unitList(layer, name)).filter(Boolean));
  showCards();
  drawPlot();
}

function unitList(layer, name) {
  const units = unitsOf(layer).filter((unit) => unit.state === name);
  if (units.length === 0) return null;
  const what = name === "dead" ? "never above zero in this data set" : "above zero at every place of every image";
  return el("details", { class: "listed" },
    el("summary", {}, `${name === "dead" ? "Dead" : "Always on"}: ${plural(units.length, "unit")} `,
      el("small", {}, what)),
    el("p", {}, units.flatMap((unit) => [el("a", { href: unit.link }, String(unit.unit)), " "])));
}

function showCards() {
  const units = unitsOf(currentLayer);
  choices(byId("states"), STATES.map(([name, text, holds]) => [name, text, units.filter(holds).length])
    .filter(([name, , count]) => count > 0 || name === "all"), state, (name) => { state = name; showCards(); });
  const by = byId("sort").value;
  const upwards = (by === "unit") !== (byId("reverse").getAttribute("aria-pressed") === "true");
  const wanted = byId("search").value.trim();
  displayed = units
    .filter(STATES.find(([name]) => name === state)[2])
    .filter((unit) => String(unit.unit).startsWith(wanted))
    .sort((a, b) => compare(a[by], b[by], upwards) || a.unit - b.unit);
  byId("count").textContent = displayed.length === units.length
    ? `${plural(units.length, "unit")} of ${currentLayer.name}`
    : `${displayed.length} of ${plural(units.length, "unit")} of ${currentLayer.name}`;
  drawCards();
}

// What has no value comes last, whichever way.
function compare(a, b, upwards) {
  if (a === null || b === null) return (a === null) - (b === null);
  return upwards ? a - b : b - a;
}

// The first cards at once, the others while the browser has nothing else to do.
function drawCards() {
  const mine = ++drawing;
  const list = byId("cards");
  const units = displayed;
  let drawn = 0;
  const some = () => {
    if (mine !== drawing) return;
    list.append(...units.slice(drawn, drawn + DRAWN_AT_ONCE).map(cardOf));
    drawn += DRAWN_AT_ONCE;
    list.setAttribute("aria-busy", String(drawn < units.length));
    if (drawn < units.length) setTimeout(some);
  };
  list.replaceChildren();
  some();
  list.querySelector("a")?.setAttribute("tabindex", "0");
}

function cardOf(unit) {
  let card = cardsByUnit.get(unit);
  if (card === undefined) cardsByUnit.set(unit, (card = makeCard(unit)));
  card.firstChild.setAttribute("tabindex", "-1");
  return card;
}

function makeCard(unit) {
  const facts = [["fires on", percent(unit.firing)], ["max", number(unit.max)], ["specific", number(unit.specificity)],
    ...(data.baseline ? [["PSI", number(unit.psi)]] : [])];
  const spoken = `unit ${unit.unit}, ${unit.state}${unit.drifted ? ", drifted" : ""}, ` +
    facts.map((pair) => pair.join(" ")).join(", ");
  return el("li", {}, el("a", { class: "card", href: unit.link, "aria-label": spoken, "data-unit": unit.unit },
    el("span", { class: "name" },
      el("span", {}, el("small", {}, "unit "), el("b", {}, String(unit.unit))), badges(unit)),
    pictures(unit),
    el("span", { class: "measures" }, facts.map(([term, value]) => el("span", {}, el("small", {}, term), value)))));
}

function badges(unit) {
  const names = [...(unit.state === "live" ? [] : [unit.state]), ...(unit.drifted ? ["drifted"] : [])];
  return names.map((name) => el("span", { class: `badge ${name}` }, name));
}

function pictures(unit) {
  const side = Math.ceil(Math.sqrt(data.top));
  if (unit.winners.length === 0)
    return el("span", { class: "nothing" }, unit.state === "dead" ? "no image makes it fire" : "no pictures");
  const rows = Array.from({ length: Math.ceil(data.top / side) }, (_, row) => row * side);
  const grid = (what) => el("span", { class: "nine", "--side": side, "--ratio": side / rows.length },
    rows.filter((first) => first < unit.winners.length)
      .map((first) => cells(unit, what, first, Math.min(side, unit.winners.length - first), "")));
  return el("span", { class: "pictures" }, grid("reconstructions"), grid("patches"));
}

// One stop for the tab key; arrow keys move within.
function moveFocus(event) {
  const links = [...byId("cards").querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  const columns = getComputedStyle(byId("cards")).gridTemplateColumns.split(" ").length;
  const to = {
    ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns,
    Home: 0, End: links.length - 1,
  }[event.key];
  if (at < 0 || to === undefined || links[to] === undefined) return;
  event.preventDefault();
  focusCard(links[to]);
}
function focusCard(link) {
  byId("cards").querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
  link.setAttribute("tabindex", "0");
  link.focus();
}

// The plot: firing rate to the right, what one chooses upwards.
const PLOT = { height: 240, left: 58, right: 16, top: 12, bottom: 40 };
let dots = [];

function drawPlot() {
  const by = byId("plot-y").value;
  const units = unitsOf(currentLayer).filter((unit) => unit[by] !== null);
  const { height, left, right, top, bottom } = PLOT;
  const width = Math.max(byId("plot").clientWidth, 280);
  const most = Math.max(...units.map((unit) => unit[by]), 0) || 1;
  const step = niceStep(most / 4);
  const highest = step * Math.ceil(most / step);
  const x = (share) => left + share * (width - left - right);
  const y = (value) => height - bottom - (Math.max(value, 0) / highest) * (height - top - bottom);
  const ticksX = [0, 0.25, 0.5, 0.75, 1].map((share) => [
    svg("line", { x1: x(share), x2: x(share), y1: top, y2: height - bottom }),
    svg("text", { x: x(share), y: height - bottom + 16, "text-anchor": "middle" }, percent(share)),
  ]);
  const ticksY = Array.from({ length: Math.round(highest / step) + 1 }, (_, nth) => [
    svg("line", { x1: left, x2: width - right, y1: y(nth * step), y2: y(nth * step) }),
    svg("text", { x: left - 8, y: y(nth * step) + 4, "text-anchor": "end" }, number(nth * step)),
  ]);
  dots = units.map((unit) => ({ unit, x: x(unit.firing), y: y(unit[by]) }));
  const name = SORTS.find(([value]) => value === by)[1];
  byId("plot").replaceChildren(svg("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${name} against firing rate of ${plural(units.length, "unit")} of ${currentLayer.name}; ` +
      "the cards below say the same",
  },
    svg("g", { class: "ticks" }, ticksX, ticksY),
    svg("text", { class: "axis", x: width - right, y: height - 6, "text-anchor": "end" },
      "share of images on which the unit fires"),
    svg("g", { class: "dots" }, dots.map((dot) =>
      svg("circle", { cx: dot.x, cy: dot.y, r: 3.5, class: dot.unit.drifted ? "drifted" : dot.unit.state }))),
    svg("circle", { class: "nearest", r: 7 })));
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= least);
}

function nearestDot(event) {
  const drawn = byId("plot").firstChild;
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawn.getScreenCTM().inverse());
  const distance = (dot) => Math.hypot(dot.x - at.x, dot.y - at.y);
  const nearest = dots.reduce((best, dot) => (best === null || distance(dot) < distance(best) ? dot : best), null);
  return nearest !== null && distance(nearest) < 30 ? nearest : null;
}

function pointAt(event) {
  const nearest = nearestDot(event);
  const ring = byId("plot").querySelector(".nearest");
  for (const [name, value] of [["cx", nearest?.x], ["cy", nearest?.y]])
    if (value === undefined) ring.removeAttribute(name);
    else ring.setAttribute(name, value);
  byId("plot").classList.toggle("on-dot", nearest !== null);
  const by = byId("plot-y").value;
  const name = SORTS.find(([value]) => value === by)[1];
  byId("readout").textContent = nearest === null ? ""
    : `unit ${nearest.unit.unit}: fires on ${percent(nearest.unit.firing)}, ${name} ${number(nearest.unit[by])}`;
}

function startAtlas() {
  byId("layers").replaceChildren(...data.layers.map((layer) => el("a", {
    href: `#/atlas/${layer.name}`, "data-layer": layer.name,
  }, layer.name, " ", el("small", {}, layer.unit.length.toLocaleString("en")))));
  options(byId("sort"), SORTS);
  options(byId("plot-y"), SORTS.filter(([name]) => !["unit", "firing"].includes(name)));
  byId("sort").addEventListener("change", showCards);
  byId("search").addEventListener("input", showCards);
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const exact = displayed.find((unit) => String(unit.unit) === event.target.value.trim());
    if (exact !== undefined) location.hash = exact.link;
  });
  byId("reverse").addEventListener("click", ({ currentTarget }) => {
    currentTarget.setAttribute("aria-pressed", String(currentTarget.getAttribute("aria-pressed") !== "true"));
    showCards();
  });
  byId("cards").addEventListener("keydown", moveFocus);
  byId("plot-y").addEventListener("change", drawPlot);
  window.addEventListener("resize", () => { if (overAtlas()) drawPlot(); });
  byId("plot").addEventListener("pointermove", pointAt);
  byId("plot").addEventListener("pointerleave", pointAt);
  byId("plot").addEventListener("click", (event) => {
    const nearest = nearestDot(event);
    if (nearest !== null) location.hash = nearest.unit.link;
  });
}
