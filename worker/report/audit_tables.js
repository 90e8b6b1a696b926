// The tables of images and of findings.

const images = data.images.key.map((key, index) => ({
  index, key, name: data.images.name[index], status: data.images.status[index], message: data.images.message[index],
  size: data.images.size[index], outlier: data.images.outlier[index], strongest: data.images.strongest[index],
  wins: data.images.wins[index], exact: data.images.exact[index], near: data.images.near[index], link: `#/image/${key}`,
}));
const imageByKey = new Map(images.map((image) => [image.key, image]));
const findingsOfImage = (image) => findingsByLink.get(image.link) ?? [];
const isOutlier = (image) => findingsOfImage(image).some(([, kind]) => kind === "outlier");
const groupOf = (image) => image.exact ?? image.near;

const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

const IMAGE_KINDS = [
  ["all", "All", () => true, "source"],
  ["failed", "Failed", (image) => image.status !== "ok", "source"],
  ["outliers", "Outliers", isOutlier, "outlier"],
  ["alike", "Alike", (image) => groupOf(image) !== null, "group"],
  ["winners", "Most often on top", (image) => image.wins > 0, "wins"],
];
const IMAGE_SORTS = {
  source: ["order of the sources", (a, b) => a.index - b.index],
  outlier: ["outlier score", (a, b) => compare(a.outlier, b.outlier, false)],
  wins: ["units won", (a, b) => b.wins - a.wins],
  group: ["alike", (a, b) => (groupOf(a) === null) - (groupOf(b) === null) || byText(groupOf(a), groupOf(b))],
  name: ["name", (a, b) => byText(a.name, b.name)],
};
const SHOWN_WINS = 24;

let imageKind = "all";
let pinned = null; // the image that the URL names: its row is the first, with all that is known of it

const shortName = (name) => name.replace(/\/+$/, "").split("/").at(-1) || name;
function imageLink(index) {
  const image = images[index];
  return image === undefined ? "an image" : el("a", { href: image.link }, el("bdi", {}, shortName(image.name)));
}
function unitLink(name) {
  const [layer, unit] = name.split(":");
  return layers.has(layer) ? el("a", { href: `#/unit/${layer}/${unit}` }, name) : name;
}

function showImages(key, kind) {
  pinned = key === null ? null : imageByKey.get(key) ?? null;
  if (key === null && IMAGE_KINDS.some(([name]) => name === kind)) chooseImages(kind);
  else drawImages();
  byId("image-rows").querySelector(".pinned th a")?.focus();
}
function chooseImages(kind) {
  imageKind = kind;
  byId("image-sort").value = IMAGE_KINDS.find(([name]) => name === kind)[3];
  drawImages();
}
function drawImages() {
  choices(byId("image-kinds"), IMAGE_KINDS.map(([name, text, holds]) => [name, text, images.filter(holds).length])
    .filter(([name, , count]) => count > 0 || name === imageKind || name === "all"), imageKind, chooseImages);
  const wanted = byId("image-search").value.toLowerCase();
  const found = images
    .filter(IMAGE_KINDS.find(([name]) => name === imageKind)[2])
    .filter((image) => image !== pinned && image.name.toLowerCase().includes(wanted))
    .sort((a, b) => IMAGE_SORTS[byId("image-sort").value][1](a, b) || a.index - b.index);
  byId("image-count").textContent = plural(found.length + (pinned === null ? 0 : 1), "image");
  fill(byId("image-rows"), byId("image-more"), pinned === null ? found : [pinned, ...found],
    (image) => (image === pinned ? pinnedRows(image) : imageRow(image)));
}

function imageRow(image, attributes = {}) {
  const alike = groupOf(image) === null ? "" : `${image.exact === null ? "near" : "exact"}: ${groupOf(image)}`;
  return el("tr", attributes,
    el("th", { scope: "row" }, el("a", { href: image.link }, el("bdi", {}, shortName(image.name)))),
    el("td", {}, image.status, image.message ? el("small", {}, el("bdi", {}, image.message)) : null),
    el("td", { class: "numeric", "data-label": "outlier score" }, number(image.outlier)),
    el("td", { class: "numeric", "data-label": "top image of" }, image.wins === 0 ? "–" : plural(image.wins, "unit")),
    el("td", { "data-label": "strongest units" }, image.strongest.slice(0, 3).flatMap((name) => [unitLink(name), " "])),
    alike === "" ? el("td") : el("td", { "data-label": "alike" }, el("small", {}, alike)));
}

// A row with all that is known of the image; one fragment, as `fill` wants one node an item.
function pinnedRows(image) {
  const wins = winsOf(image);
  const group = groupOf(image);
  const others = images.filter((other) => other !== image && group !== null && groupOf(other) === group);
  const both = document.createDocumentFragment();
  both.append(imageRow(image, { class: "pinned" }), el("tr", { class: "about" }, el("td", { colspan: "6" },
    el("p", { class: "path" }, el("bdi", {}, image.name), image.size === null ? "" : ` · ${image.size} px`),
    el("ul", { class: "notes" }, findingsOfImage(image).map(([severity, kind, , , why]) => el("li", {},
      el("span", { class: `severity ${severity}` }, severity), " ", el("b", {}, kind), " ", el("bdi", {}, why)))),
    image.strongest.length === 0 ? null
      : el("p", {}, "Most unusual units: ", image.strongest.flatMap((name) => [unitLink(name), " "])),
    others.length === 0 ? null
      : el("p", {}, "Alike: ", others.slice(0, 50).flatMap((other) => [imageLink(other.index), " "])),
    el("p", {}, wins.length === 0 ? "It is no unit’s top image."
      : `It is a top image of ${plural(wins.length, "unit")}:`),
    el("ul", { class: "wins" }, wins.slice(0, SHOWN_WINS).map(winItem)),
    wins.length <= SHOWN_WINS ? null
      : el("p", {}, "and ", wins.slice(SHOWN_WINS).flatMap(({ unit }) => [unitLink(nameOf(unit)), " "])))));
  return both;
}
const nameOf = (unit) => `${unit.layer.name}:${unit.unit}`;
function winItem({ unit, winner }) {
  const pair = winner.failure !== null ? el("span", { class: "nothing" }, "no picture")
    : el("span", { class: "pair" },
      cells(unit, "reconstructions", winner.rank, 1, `Reconstruction of unit ${unit.unit}`),
      cells(unit, "patches", winner.rank, 1, "What it saw"));
  return el("li", {}, el("a", { href: unit.link },
    pair, `${nameOf(unit)} `, el("small", {}, `rank ${winner.rank + 1}`)));
}

let winsByImage = null;
function winsOf(image) {
  if (winsByImage === null) {
    winsByImage = new Map(images.map((each) => [each.index, []]));
    for (const layer of [...data.layers].reverse())
      for (const unit of unitsOf(layer))
        for (const winner of unit.winners) winsByImage.get(winner.image)?.push({ unit, winner });
  }
  return winsByImage.get(image.index);
}

let severity = "all";
function showFindings() {
  const kinds = [...new Set(data.findings.map(([, kind]) => kind))].sort();
  const counts = ["error", "warning", "info"]
    .map((name) => [name, name, data.findings.filter(([each]) => each === name).length])
    .filter(([, , count]) => count > 0);
  choices(byId("severities"), [["all", "All", data.findings.length], ...counts], severity, (name) => {
    severity = name;
    showFindings();
  });
  const kind = byId("kind").value;
  options(byId("kind"), [["", "any"], ...kinds.map((name) => [name, name])]);
  byId("kind").value = kind;
  const found = data.findings.filter(([each, its]) =>
    (severity === "all" || each === severity) && (kind === "" || its === kind));
  byId("finding-count").textContent = found.length === 0 ? "No finding." : plural(found.length, "finding");
  fill(byId("finding-rows"), byId("finding-more"), found, ([each, its, subject, value, why, link]) => el("tr", {},
    el("td", {}, el("span", { class: `severity ${each}` }, each)),
    el("td", { class: "kind" }, its),
    el("th", { scope: "row" }, link === null ? el("bdi", {}, subject)
      : el("a", { href: link }, el("bdi", {}, subject))),
    value === null ? el("td") : el("td", { class: "numeric", "data-label": "number" }, number(value)),
    el("td", {}, el("bdi", {}, why))));
}

function startTables() {
  options(byId("image-sort"), Object.entries(IMAGE_SORTS).map(([name, [text]]) => [name, text]));
  byId("image-sort").addEventListener("change", drawImages);
  byId("image-search").addEventListener("input", drawImages);
  byId("kind").addEventListener("change", showFindings);
}

// Once the browser has painted what needs no script.
requestAnimationFrame(() => setTimeout(() => {
  startAtlas();
  startUnit();
  startTables();
  window.addEventListener("hashchange", route);
  route();
}));
