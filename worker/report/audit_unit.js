// One unit in a dialog: its pictures with their controls, its histogram, its statistics.

const NIE = "https://arxiv.org/abs/1805.07039";
let opened = null;

function openUnit(unit) {
  opened = unit;
  const dialog = byId("unit");
  const order = overAtlas() && displayed.includes(unit) ? displayed : unitsOf(unit.layer);
  const at = order.indexOf(unit);
  const neighbour = (by, text, key) => el("button", {
    type: "button", class: "step", disabled: order[at + by] === undefined, "aria-label": text, "aria-keyshortcuts": key,
    "data-step": by, onclick: () => stepTo(order[at + by]),
  }, by < 0 ? "←" : "→");
  const focused = document.activeElement?.dataset?.step;
  dialog.replaceChildren(...[
    el("header", {},
      el("h2", { id: "unit-title", tabindex: "-1" }, `${unit.layer.name} · unit ${unit.unit} `, badges(unit)),
      neighbour(-1, "Previous unit", "ArrowLeft"), neighbour(1, "Next unit", "ArrowRight"),
      el("button", { type: "button", class: "close", onclick: closeUnit }, "Close")),
    findingsOf(unit),
    el("div", { class: "unit" },
      winnersOf(unit), el("div", { class: "summary" }, histogramOf(unit), statisticsOf(unit))),
  ].filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  (dialog.querySelector(`[data-step="${focused}"]:not([disabled])`) ?? byId("unit-title")).focus();
}

// Neighbours take this unit's place in the history: the back button leads out, not through them.
function stepTo(unit) {
  history.replaceState(null, "", unit.link);
  route();
}
function closeUnit() {
  if (byId("unit").open) byId("unit").close();
}
// However it was closed: by its button, by Escape, by going back.
function unitClosed() {
  if (byId("unit").open) return;
  if (location.hash === opened.link) history.replaceState(null, "", beneath);
  const link = cardsByUnit.get(opened)?.firstChild;
  if (overAtlas() && link?.isConnected) focusCard(link);
}

function findingsOf(unit) {
  if (unit.findings.length === 0) return null;
  return el("ul", { class: "notes" }, unit.findings.map(([severity, kind, , , why]) =>
    el("li", {}, el("span", { class: `severity ${severity}` }, severity), " ", el("b", {}, kind), " ", why)));
}

function statisticsOf(unit) {
  const facts = [
    ["fires on", percent(unit.firing), "of the images"],
    ["fires at", percent(unit.places), "of all places"],
    ["mean peak", number(unit.mean), `± ${number(unit.variance === null ? null : Math.sqrt(unit.variance))}`],
    ["maximum", number(unit.max), ""],
    ["specificity", number(unit.specificity), "0: pictures as another unit’s"],
    ["training effect", number(unit.training), "0: pictures as untrained kernels’"],
    ["display scale", unit.scale === null ? "–" : `± ${number(unit.scale)}`, "in 0–255 pixel units"],
  ];
  if (data.baseline) facts.push(
    ["drift, PSI", number(unit.psi), `above ${data.driftPsi} is large`],
    ["drift, KS", number(unit.ks), "largest difference of the distributions"],
    ["top images", percent(unit.turnover), "are new"]);
  return el("dl", { class: "statistics" }, facts.map(([term, value, note]) =>
    el("div", {}, el("dt", {}, term), el("dd", {}, value, " ", el("small", {}, note)))));
}

// Bins are quarter octaves: `code` counts them from 1.
const edge = (code) => 2 ** Math.floor(code / 4) * (1 + (((code % 4) + 4) % 4) / 4);

function histogramOf(unit) {
  const total = unit.histogram.reduce((sum, [, count]) => sum + count, 0);
  const bins = unit.histogram.filter(([code]) => code !== null);
  const silent = total - bins.reduce((sum, [, count]) => sum + count, 0);
  const rest = silent === 0 ? "All are above zero."
    : `Not above zero, and not drawn: ${plural(silent, "image")} (${percent(silent / total)}).`;
  const caption = el("figcaption", {}, `Strongest activation in each of ${plural(total, "image")}. `,
    el("small", {}, rest));
  if (bins.length === 0) return el("figure", { class: "histogram" }, caption);
  const width = 340, height = 150, bottom = 24, left = 40, top = 8;
  const first = bins[0][0], last = bins.at(-1)[0] + 1;
  const most = Math.max(...bins.map(([, count]) => count));
  const x = (code) => left + ((code - first) / Math.max(last - first, 8)) * (width - left - 8);
  const y = (count) => height - bottom - (count / most) * (height - bottom - top);
  const every = Math.max(1, Math.ceil((last - first) / 4 / 6));
  const octaves = [];
  for (let octave = Math.ceil(first / 4); 4 * octave <= last; octave++)
    if (octave % every === 0) octaves.push(4 * octave);
  const ticks = octaves.length > 0 ? octaves : [first];
  return el("figure", { class: "histogram" },
    svg("svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Histogram of ${plural(total, "image")}: from ${number(edge(first))} to ${number(edge(last))}, ` +
        `most in one bin ${most}`,
    },
      svg("g", { class: "ticks" },
        svg("line", { x1: left, x2: width - 8, y1: y(0), y2: y(0) }),
        svg("line", { x1: left, x2: width - 8, y1: y(most), y2: y(most) }),
        svg("text", { x: left - 6, y: y(most) + 4, "text-anchor": "end" }, number(most)),
        svg("text", { x: left - 6, y: y(0) + 4, "text-anchor": "end" }, "0"),
        ticks.map((code) => svg("text", { x: x(code), y: height - 8, "text-anchor": "middle" }, number(edge(code))))),
      svg("g", { class: "bars" }, bins.map(([code, count]) => svg("rect", {
        x: x(code) + 0.5, y: y(count),
        width: Math.max(x(code + 1) - x(code) - 1, 1), height: Math.max(y(0) - y(count), 0.5),
      }, svg("title", {}, `${number(edge(code))} to ${number(edge(code + 1))}: ${plural(count, "image")}`))))),
    caption);
}

function winnersOf(unit) {
  if (unit.winners.length === 0)
    return el("p", { class: "nothing" }, "No image makes this unit fire, so there is nothing to show.");
  return el("section", { class: "winners" },
    el("h3", {}, plural(unit.winners.length, "top image")),
    el("p", { class: "note" },
      "How to read the controls: they begin with another unit’s kernel, or with untrained ones, at the same place ",
      "and through the same switches. ",
      el("strong", {}, "What survives there comes from the switches and says nothing about this unit"), " (",
      el("a", { href: NIE }, "Nie et al., arXiv 1805.07039"),
      "). The number is the cosine to the reconstruction: 1 is the same picture, 0 nothing in common."),
    el("ol", {}, unit.winners.map((winner) => winnerOf(unit, winner))));
}

function winnerOf(unit, winner) {
  const name = data.images.name[winner.image] ?? "image";
  const heading = el("p", { class: "heading" }, el("b", {}, `${winner.rank + 1}`), " ", imageLink(winner.image), " ",
    el("small", {}, `activation ${number(winner.activation)}`));
  if (winner.failure !== null)
    return el("li", {}, heading, el("p", { class: "nothing" }, `No picture: ${winner.failure}`));
  const where = `of unit ${unit.unit} for ${shortName(name)}`;
  const picture = (what, row, alt, caption) => el("figure", {},
    cells(unit, what, winner.rank, 1, alt, row), el("figcaption", {}, caption));
  return el("li", {}, heading, el("div", { class: "four" },
    picture("reconstructions", 0, `Reconstruction ${where}`, "reconstruction"),
    picture("patches", 0, `Patch of ${shortName(name)} that unit ${unit.unit} saw`, "what it saw"),
    picture("controls", 0, `Another unit’s reconstruction, control ${where}`,
      ["another unit ", el("b", {}, number(winner.other))]),
    picture("controls", 1, `Untrained kernels’ reconstruction, control ${where}`,
      ["untrained ", el("b", {}, number(winner.untrained))])));
}

function startUnit() {
  const dialog = byId("unit");
  dialog.addEventListener("close", unitClosed);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) closeUnit(); });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by !== undefined) dialog.querySelector(`[data-step="${by}"]:not([disabled])`)?.click();
  });
}
