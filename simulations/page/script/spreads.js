// Distributions of durations: histograms, and cumulative shares.

const SVG = $("svg").namespaceURI;
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The value that this share of all values does not exceed. */
const quantile = (sorted, share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
const MARKED = [[0.5, "p50"], [0.95, "p95"], [0.99, "p99"]];
const GROUPS_MAX = 9;

const LEAST_S = 1e-6;

/** Show the distribution of how long things took. */
function spread(box, things, { colour, what }) {
  const groups = gather(things, colour);
  if (!groups.length) {
    box.replaceChildren(make("p", { className: "soft" }, "None."));
    return;
  }
  const lowestOne = Math.max(LEAST_S, Math.min(...groups.map(({ sorted }) => sorted.find((v) => v > 0) ?? LEAST_S)));
  const highest = Math.max(lowestOne * 1.0001, ...groups.map(({ sorted }) => sorted[sorted.length - 1]));
  const low = Math.floor(Math.log10(lowestOne) + 1e-9);
  let high = Math.ceil(Math.log10(highest) - 1e-9);
  if (high <= low) high = low + 1;
  const axis = { low, high, place: (v) => (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low) };
  box.replaceChildren(histograms(groups, axis, what), curves(groups, axis, what));
}

function gather(things, colour) {
  const groups = new Map();
  for (const thing of things) {
    if (!groups.has(thing.group)) groups.set(thing.group, { name: thing.group, colour: colour(thing), values: [] });
    groups.get(thing.group).values.push(Math.max(0, thing.took_s));
  }
  let list = [...groups.values()].sort((a, b) => b.values.length - a.values.length);
  if (list.length > GROUPS_MAX) {
    const rest = list.slice(GROUPS_MAX - 1);
    list = list.slice(0, GROUPS_MAX - 1);
    list.push({ name: `${rest.length} other kinds`, colour: "faint", values: rest.flatMap(({ values }) => values) });
  }
  const uses = {};
  for (const group of list) {
    // Groups of the same colour differ in their dashes.
    uses[group.colour] = (uses[group.colour] ?? 0) + 1;
    group.dash = [null, "6 3", "2 3"][(uses[group.colour] - 1) % 3];
    group.sorted = Float64Array.from(group.values).sort();
  }
  return list;
}

const decades = ({ low, high }) => Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
const sparse = (list, most) => list.filter((_, i) => i % Math.ceil(list.length / most) === 0);

const WIDE = 300;

function histograms(groups, axis, what) {
  const table = make("table");
  const head = make("tr", {}, make("th", { scope: "col" }, what.group), make("th", { scope: "col" }, scale(axis)));
  for (const name of ["n", "p50", "p95", "p99", "max"]) head.append(make("th", { className: "number", scope: "col" }, name));
  table.append(make("thead", {}, head));
  const body = make("tbody");
  for (const group of groups) {
    const { sorted } = group;
    const row = make(
      "tr",
      {},
      make("td", {}, make("span", { className: "way" }, swatch(group), group.name)),
      make("td", {}, histogram(group, axis)),
      make("td", { className: "number" }, number(sorted.length)),
    );
    for (const [share] of MARKED) row.append(make("td", { className: "number" }, lasting(quantile(sorted, share))));
    row.append(make("td", { className: "number" }, lasting(sorted[sorted.length - 1])));
    body.append(row);
  }
  table.append(body);
  return make("div", { className: "wide" }, table);
}

function swatch({ colour, dash }) {
  const line = svg("line", { x1: 0, x2: 20, y1: 4, y2: 4, stroke: `var(--${colour})`, "stroke-width": 3 });
  if (dash) line.setAttribute("stroke-dasharray", dash);
  const box = svg("svg", { viewBox: "0 0 20 8", class: "swatch", "aria-hidden": "true" }, line);
  box.style.width = "20px";
  return box;
}

function scale(axis) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} 14`, "aria-hidden": "true" });
  for (const value of sparse(decades(axis), 5)) {
    const px = axis.place(value) * WIDE;
    const anchor = px < 10 ? "start" : px > WIDE - 10 ? "end" : "middle";
    picture.append(svg("text", { x: px, y: 11, "text-anchor": anchor }, onAxis(value)));
  }
  return picture;
}

/** A histogram with ten cells per decade, and marks at p50, p95 and p99. */
function histogram({ name, colour, sorted }, axis) {
  const high = 34;
  const cells = (axis.high - axis.low) * 10;
  const counts = new Uint32Array(cells);
  for (const value of sorted) counts[Math.min(cells - 1, Math.floor(axis.place(value) * cells + 1e-9))] += 1;
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const told = MARKED.map(([share, label]) => `${label} ${lasting(quantile(sorted, share))}`).join(", ");
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${high + 3}`, role: "img", "aria-label": `${name}: ${told}` });
  for (const value of decades(axis)) {
    const px = axis.place(value) * WIDE;
    picture.append(svg("line", { class: "grid", x1: px, x2: px, y1: 0, y2: high }));
  }
  const wide = WIDE / cells;
  counts.forEach((n, i) => {
    if (!n) return;
    const tall = Math.max(1.5, (n / most) * (high - 3));
    const from = 10 ** (axis.low + i / 10);
    const cell = svg("rect", { x: i * wide + 0.3, y: high - tall, width: Math.max(0.7, wide - 0.6), height: tall, fill: `var(--${colour})` });
    cell.append(svg("title", {}, `${lasting(from)} to ${lasting(from * 10 ** 0.1)}: ${number(n)}`));
    picture.append(cell);
  });
  picture.append(svg("line", { class: "axis", x1: 0, x2: WIDE, y1: high, y2: high }));
  for (const [share, label] of MARKED) {
    const px = axis.place(quantile(sorted, share)) * WIDE;
    const pin = svg("path", { d: `M${px} ${high - 1}l-3 4h6z`, fill: "var(--ink)" });
    pin.append(svg("title", {}, `${label}: ${lasting(quantile(sorted, share))}`));
    picture.append(pin);
  }
  return picture;
}

/** Cumulative shares over time. Each further nine of the tail gets as much room as the first nine
    tenths, so that the slow ones, which people remember, are visible. */
function curves(groups, axis, what) {
  const [wide, high, left, top, bottom] = [560, 216, 48, 8, 26];
  const most = Math.max(...groups.map(({ sorted }) => sorted.length));
  const shares = [0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999].filter((share, i) => i < 5 || 1 / (1 - share) <= most);
  const tall = -Math.log10(1 - shares[shares.length - 1]) + 0.12;
  const py = (share) => top + (high - top - bottom) * (1 - Math.min(tall, -Math.log10(Math.max(1e-12, 1 - share))) / tall);
  const px = (value) => left + axis.place(value) * (wide - left - 8);
  const picture = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${what.curve}; the table beside it has the same numbers` });
  for (const share of shares) {
    picture.append(
      svg("line", { class: "grid", x1: left, x2: wide - 8, y1: py(share), y2: py(share) }),
      svg("text", { x: left - 7, y: py(share) + 4, "text-anchor": "end", class: MARKED.some(([s]) => s === share) ? "strong" : "" }, `${Number((share * 100).toFixed(2))} %`),
    );
  }
  const values = decades(axis);
  for (const value of values) picture.append(svg("line", { class: "grid", x1: px(value), x2: px(value), y1: top, y2: high - bottom }));
  for (const value of sparse(values, 8)) {
    const anchor = px(value) > wide - 24 ? "end" : "middle";
    picture.append(svg("text", { x: px(value), y: high - 9, "text-anchor": anchor }, onAxis(value)));
  }
  for (const { name, colour, dash, sorted } of groups) {
    const points = [[px(sorted[0]), py(0)]];
    const n = sorted.length;
    for (const i of picked(n)) {
      const [, y] = points[points.length - 1];
      points.push([px(sorted[i]), y], [px(sorted[i]), py(i === n - 1 ? 1 - 0.5 / n : (i + 1) / n)]);
    }
    const d = points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
    const curve = svg("path", { d, fill: "none", stroke: `var(--${colour})`, "stroke-width": 2, "stroke-linejoin": "round" }, svg("title", {}, name));
    if (dash) curve.setAttribute("stroke-dasharray", dash);
    picture.append(curve);
  }
  return make("div", {}, make("p", { className: "chart-title" }, what.curve), picture);
}

/** Indices of the values that a curve goes through: a few hundred of n, denser towards the end. */
function picked(n) {
  if (n <= 240) return Array.from({ length: n }, (_, i) => i);
  const chosen = new Set();
  for (let i = 0; i <= 160; i++) chosen.add(Math.round((i / 160) * (n - 1)));
  for (let i = 0; i <= 120; i++) chosen.add(n - 1 - Math.round(10 ** ((i / 120) * Math.log10(n / 10)) - 1));
  return [...chosen].sort((a, b) => a - b);
}

function drawSpreads() {
  const inView = (thing) => concerns(thing) && (!look.inView || (thing.at_s <= look.to && thing.at_s + thing.took_s >= look.from));
  const queries = run.queries.filter(inView);
  const lookups = run.lookups.filter(inView);
  const part = [look.focus ? `from or to ${look.focus.name}` : "", look.inView ? "in view" : ""].filter(Boolean).join(", ");
  $("queries-section").hidden = !run.queries.length;
  $("lookups-section").hidden = !run.lookups.length;
  const good = queries.filter((query) => query.outcome === "reply").length;
  const share = queries.length ? ` · ${digits((100 * good) / queries.length)} % replied` : "";
  $("queries-of").textContent = `${count(queries.length, "query", "queries")}${part && ` ${part}`}${share}`;
  spread($("queries"), queries, { colour: colourOf, what: { group: "outcome, way", curve: "Share of queries that were over by then" } });
  $("lookups-of").textContent = `${count(lookups.length, "lookup")}${part && ` ${part}`}`;
  const colour = ({ found }) => (found ? "good" : "bad");
  spread($("lookups"), lookups, { colour, what: { group: "lookups", curve: "Share of lookups that were over by then" } });
}
