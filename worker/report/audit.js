"use strict";
// The page's data, what all parts of it share, and which part is shown. Text enters the page as text nodes
// and attributes alone: a name from the data set never becomes markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const layers = new Map(data.layers.map((layer) => [layer.name, layer]));

const SVG = "http://www.w3.org/2000/svg";
function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "onclick") element.addEventListener("click", value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null));
  return element;
}
const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

function number(value) {
  if (value === null) return "–";
  if (Math.abs(value) >= 1000 && Math.abs(value) < 1e6) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}
function percent(share) {
  if (share === null) return "–";
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return value < 100 && value > 99.9 ? "> 99.9 %" : `${Number(value.toPrecision(3))} %`;
}
const plural = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

// Units as objects, a layer at a time, when somebody looks at it.
const DRIFTED = new Set(["drift", "newly-dead", "revived"]);
const findingsByLink = new Map();
for (const finding of data.findings) {
  if (!findingsByLink.has(finding[5])) findingsByLink.set(finding[5], []);
  findingsByLink.get(finding[5]).push(finding);
}
const COLUMNS = [
  "state", "firing", "places", "mean", "variance", "max", "specificity", "training", "psi", "ks", "turnover",
  "scale", "histogram",
];
const unitsByLayer = new Map();
function unitsOf(layer) {
  if (!unitsByLayer.has(layer.name)) {
    const manyDrifted = (findingsByLink.get(`#/atlas/${layer.name}`) ?? []).some((each) => each[1] === "drift");
    unitsByLayer.set(layer.name, layer.unit.map((unit, nth) => {
      const link = `#/unit/${layer.name}/${unit}`;
      const findings = findingsByLink.get(link) ?? [];
      // Of a layer with many drifted units there is one finding, which does not name them all.
      const drifted = findings.some((each) => DRIFTED.has(each[1])) || (manyDrifted && layer.psi[nth] > data.driftPsi);
      const values = { layer, unit, link, findings, drifted };
      for (const column of COLUMNS) values[column] = layer[column][nth];
      values.winners = layer.winners[nth].map(([rank, image, activation, other, untrained, box, failure]) =>
        ({ rank, image, activation, other, untrained, box, failure }));
      return values;
    }));
  }
  return unitsByLayer.get(layer.name);
}

// Pictures: sprites beside the page, or data: URIs within it.
const picturesByLayer = new Map();
function sheet({ layer, unit }, what) {
  const embedded = byId(`pictures-${layer.name}`);
  if (embedded === null) return `../atlas/${layer.name}/unit-${String(unit).padStart(3, "0")}-${what}.webp`;
  if (!picturesByLayer.has(layer.name)) picturesByLayer.set(layer.name, JSON.parse(embedded.textContent));
  return picturesByLayer.get(layer.name)[`${unit}-${what}`] ?? null;
}

// Cells `first` to `first + count` of a sprite, of its `row`. All sizes are known beforehand: nothing jumps.
function cells(unit, what, first, count, alt, row = 0) {
  const source = sheet(unit, what);
  const rows = what === "controls" ? 2 : 1;
  const box = el("span", {
    class: `cells${unit.layer.cell < 64 ? " enlarged" : ""}${source === null ? " missing" : ""}`,
    "--count": count, "--first": first, "--columns": data.top, "--row": row, "--rows": rows,
  });
  if (source !== null) {
    const { cell } = unit.layer;
    box.append(el("img", {
      alt, loading: "lazy", decoding: "async", width: cell * data.top, height: cell * rows, src: source,
    }));
  }
  return box;
}
document.addEventListener("error", ({ target }) => {
  if (!(target instanceof HTMLImageElement)) return;
  target.parentElement.classList.add("missing");
  byId("unreachable").hidden = false;
}, true);

// A group of buttons of which one is pressed.
function choices(group, options, chosen, choose) {
  const focused = group.contains(document.activeElement);
  group.replaceChildren(...options.map(([name, text, count]) => el("button", {
    type: "button", "aria-pressed": String(name === chosen), "data-choice": name, onclick: () => choose(name),
  }, text, " ", el("small", {}, count.toLocaleString("en")))));
  if (focused) group.querySelector("[aria-pressed=true]").focus();
}
const options = (select, pairs) =>
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));

// Rows of a table, a hundred at a time.
function fill(body, more, items, row, shown = 100) {
  body.replaceChildren(...items.slice(0, shown).map(row));
  more.hidden = items.length <= shown;
  more.textContent = `Show ${Math.min(items.length - shown, 200)} more of ${items.length.toLocaleString("en")}`;
  more.onclick = () => fill(body, more, items, row, shown + 200);
}

// Which part is shown stands in the URL's fragment, so that it can be linked and the back button works.
const views = ["atlas", "images", "findings", "method"];
let beneath = null; // what a unit's dialog was opened over
function show(view) {
  for (const name of views) byId(name).hidden = name !== view;
  for (const link of byId("views").children)
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
}
function route() {
  const [, part, name, rest] = location.hash.split("/");
  const unit = part === "unit" && layers.has(name)
    ? unitsOf(layers.get(name)).find((each) => String(each.unit) === rest) : undefined;
  if (unit !== undefined) {
    if (beneath === null) showBeneath(`#/atlas/${name}`);
    openUnit(unit);
    return;
  }
  closeUnit();
  showBeneath(location.hash);
}
const overAtlas = () => !byId("atlas").hidden;
function showBeneath(fragment) {
  const hash = fragment || "#"; // an empty URL would leave the history's entry as it is
  const [, part, name] = hash.split("/");
  if (beneath === hash) return;
  const arrived = beneath !== null;
  const before = views.find((view) => !byId(view).hidden);
  beneath = hash;
  if (part === "image" || part === "images") {
    show("images");
    showImages(part === "image" ? name : null, name);
  } else if (part === "findings" || part === "method") {
    show(part);
    if (part === "findings") showFindings();
  } else {
    show("atlas");
    showLayer(layers.get(name) ?? data.layers.at(-1));
  }
  if (arrived && (byId(before).hidden || byId(before).getBoundingClientRect().top < 0)) byId("top").scrollIntoView();
}
