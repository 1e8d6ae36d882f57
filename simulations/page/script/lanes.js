// The lanes of the picture. Only the visible span and lanes are drawn.

function drawPlot() {
  const g = fit($("plot"), size.width, size.lanes);
  const scrolled = $("lanes").scrollTop;
  const high = h().lane;
  const first = Math.floor(scrolled / high);
  const last = Math.min(look.shown.length, Math.ceil((scrolled + size.lanes) / high));
  g.save();
  g.translate(0, -scrolled);
  const bottom = Math.min(scrolled + size.lanes, look.shown.length * high);
  drawGrid(g, scrolled, bottom);
  let drawn = 0;
  for (let row = first; row < last; row++) drawFaultShade(g, look.shown[row], row * high, high);
  if (look.threads) drawn += drawThreads(g, first, last);
  for (let row = first; row < last; row++) drawn += drawLane(g, look.shown[row], row * high);
  drawPoles(g, scrolled, bottom);
  g.restore();
  return drawn;
}

function drawGrid(g, top, bottom) {
  g.lineWidth = 1;
  g.strokeStyle = colours.grid;
  g.beginPath();
  for (const [when] of ticks(96)) {
    const px = Math.round(x(when)) + 0.5;
    g.moveTo(px, top);
    g.lineTo(px, bottom);
  }
  if (h().lane > 13) {
    const high = h().lane;
    for (let y = Math.ceil(top / high) * high; y <= bottom; y += high) {
      g.moveTo(0, y - 0.5);
      g.lineTo(size.width, y - 0.5);
    }
  }
  g.stroke();
  for (const idle of skipped()) {
    g.fillStyle = colours.panel;
    g.fillRect(x(idle.from), top, x(idle.to) - x(idle.from), bottom - top);
    g.fillStyle = hatch(g);
    g.fillRect(x(idle.from), top, x(idle.to) - x(idle.from), bottom - top);
  }
  // Hatched where the recording is incomplete, so that it does not look as if nothing happened.
  const missing = run.data.left_out_from_s;
  if (missing !== null && x(missing) < size.width) {
    g.fillStyle = hatch(g);
    g.fillRect(Math.max(0, x(missing)), top, size.width, bottom - top);
  }
}

let hatched = null;
function hatch(g) {
  if (hatched) return hatched;
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const inner = tile.getContext("2d");
  inner.strokeStyle = colours.line;
  inner.beginPath();
  for (const from of [-8, 0, 8]) {
    inner.moveTo(from, 8);
    inner.lineTo(from + 8, 0);
  }
  inner.stroke();
  hatched = g.createPattern(tile, "repeat");
  return hatched;
}

function drawFaultShade(g, lane, y, high) {
  for (const fault of lane.faults) {
    const from = Math.max(x(fault.from_s), 0);
    const to = Math.min(x(fault.end), size.width);
    if (to < 0 || from > size.width) continue;
    g.fillStyle = colours.shade;
    g.fillRect(from, y, Math.max(1.5, to - from), high - (high > 13 ? 1 : 0));
  }
}

/** Vertical lines through the lanes for sentences of the story and failed claims. */
function drawPoles(g, top, bottom) {
  g.lineWidth = 1;
  const pole = (when, colour, dash) => {
    const px = Math.round(x(when)) + 0.5;
    if (px < 0 || px > size.width) return;
    g.strokeStyle = colour;
    g.setLineDash(dash);
    g.beginPath();
    g.moveTo(px, top);
    g.lineTo(px, bottom);
    g.stroke();
  };
  for (const sentence of run.story) pole(sentence.at_s, colours.none, [2, 4]);
  g.lineWidth = 1.5;
  for (const claim of run.expectations) if (!claim.held) pole(claim.at_s, colours.bad, []);
  g.setLineDash([]);
}

/** Queries as lines from lane to lane, as long as they are few enough to tell apart. */
function drawThreads(g, first, last) {
  const list = run.queries;
  const found = [];
  for (let i = lowest(list, look.from); i < list.length && list[i].at_s <= look.to; i++) {
    const query = list[i];
    if (!queryShown(query)) continue;
    const a = look.rowOf.get(query.node);
    const b = look.rowOf.get(query.peer);
    if (a === undefined || b === undefined || a === b) continue;
    if (Math.max(a, b) < first || Math.min(a, b) >= last) continue;
    found.push([query, a, b]);
    if (found.length > THREADS_MAX) return 0;
  }
  g.globalAlpha = found.length > 90 ? 0.28 : 0.5;
  for (const [query, a, b] of found) thread(g, query, a, b, colours[colourOf(query)], 1);
  g.globalAlpha = 1;
  return found.length;
}

function thread(g, thing, a, b, colour, width) {
  const { lane, query, life } = h();
  const px = x(thing.at_s);
  const to = b * lane + life + (b > a ? -5 : 5);
  const from = a * lane + ("outcome" in thing ? query : life);
  g.strokeStyle = colour;
  g.fillStyle = colour;
  g.lineWidth = width;
  g.beginPath();
  g.moveTo(px, from);
  g.lineTo(px, to);
  g.stroke();
  const tip = b > a ? 4 : -4;
  g.beginPath();
  g.moveTo(px, to + tip);
  g.lineTo(px - 3, to - tip * 0.4);
  g.lineTo(px + 3, to - tip * 0.4);
  g.fill();
}

function drawLane(g, lane, y) {
  return drawLife(g, lane, y) + drawStrip(g, lane, y) + drawQueries(g, lane, y) + drawLookups(g, lane, y) + drawEvents(g, lane, y);
}

function drawLife(g, lane, y) {
  const { life, text } = h();
  const from = Math.max(0, x(0));
  const end = Math.min(size.width, x(run.ended));
  if (!lane.states.length) {
    lifeline(g, STATES.up, from, end, y + life);
    return 1;
  }
  const start = Math.max(0, lane.states.indexOf(holding(lane.states, look.from)));
  let drawn = 0;
  for (let i = start; i < lane.states.length && lane.states[i].at_s <= look.to; i++) {
    const { at_s, state } = lane.states[i];
    const left = Math.max(from, x(at_s));
    const right = Math.min(end, i + 1 < lane.states.length ? x(lane.states[i + 1].at_s) : end);
    lifeline(g, STATES[state] ?? OTHER_STATE, left, right, y + life);
    if (at_s >= look.from && at_s > 0) {
      // A bar across the lifeline marks each change of state.
      g.fillStyle = colours[(STATES[state === "gone" ? "down" : state] ?? OTHER_STATE).colour];
      g.fillRect(left - 1, y + life - (text ? 6 : 4), 2, text ? 12 : 8);
    }
    drawn += 1;
  }
  for (let i = Math.max(1, lowest(lane.addresses, look.from)); i < lane.addresses.length; i++) {
    const { at_s, address } = lane.addresses[i];
    const px = x(at_s);
    if (px > size.width) break;
    drawn += 1;
    g.fillStyle = colours.ink;
    g.beginPath();
    g.moveTo(px, y + life);
    g.lineTo(px - 4, y + life - (text ? 9 : 5));
    g.lineTo(px + 4, y + life - (text ? 9 : 5));
    g.fill();
    if (!text) continue;
    g.font = `${text}px ${colours.mono}`;
    g.textBaseline = "alphabetic";
    const next = lane.addresses[i + 1];
    const room = (next ? x(next.at_s) : size.width) - px - 10;
    const shown = room > 20 ? cut(g, address, room) : "";
    if (!shown) continue;
    g.fillStyle = colours.ground;
    g.globalAlpha = 0.8;
    g.fillRect(px + 5, y + 1, g.measureText(shown).width + 2, text);
    g.globalAlpha = 1;
    g.fillStyle = colours.soft;
    g.fillText(shown, px + 6, y + 9);
  }
  return drawn;
}

/** The ways in use to and from the node in focus; without one, the share of peers by way. */
function drawStrip(g, lane, y) {
  const { strip: top, stripHigh: high } = h();
  const { focus } = look;
  if (focus && lane !== focus) {
    const half = high >= 6 ? high / 2 - 0.5 : high;
    let drawn = drawWay(g, focus.ways.get(lane.name), y + top, half);
    if (high >= 6) drawn += drawWay(g, lane.ways.get(focus.name), y + top + half + 1, half);
    return drawn;
  }
  const { mix } = lane;
  let drawn = 0;
  let i = Math.max(0, lowest(mix, look.from) - 1);
  while (i < mix.length && mix[i].at_s <= look.to) {
    const left = Math.max(0, x(mix[i].at_s));
    let next = i + 1;
    // Of several changes within one pixel, only the last is drawn.
    while (next < mix.length && x(mix[next].at_s) < left + 1) next += 1;
    const { direct, relay, none } = mix[next - 1];
    const right = next < mix.length ? x(mix[next].at_s) : x(run.ended);
    const width = Math.max(1, Math.min(right, size.width) - left);
    const each = high / (direct + relay + none);
    g.fillStyle = colours.direct;
    g.globalAlpha = 0.7;
    g.fillRect(left, y + top, width, direct * each);
    g.globalAlpha = 1;
    g.fillStyle = colours.relay;
    g.fillRect(left, y + top + direct * each, width, relay * each);
    g.fillStyle = colours.none;
    if (none) {
      g.globalAlpha = 0.45;
      g.fillRect(left, y + top + (direct + relay) * each, width, none * each);
      g.globalAlpha = 1;
    }
    drawn += 1;
    i = next;
  }
  return drawn;
}

function drawWay(g, changes, y, high) {
  if (!changes) return 0;
  let drawn = 0;
  for (let i = Math.max(0, lowest(changes, look.from) - 1); i < changes.length && changes[i].at_s <= look.to; i++) {
    const left = Math.max(0, x(changes[i].at_s));
    const right = Math.min(size.width, i + 1 < changes.length ? x(changes[i + 1].at_s) : x(run.ended));
    strip(g, changes[i].way, left, y, Math.max(1, right - left), high);
    drawn += 1;
  }
  return drawn;
}

function drawQueries(g, lane, y) {
  const { query: top, queryHigh: high } = h();
  const list = lane.queries;
  const good = [];
  const bad = [];
  let covered = -Infinity;
  let colour = "";
  // A query that began before the view may still reach into it.
  for (let i = lowest(list, look.from - lane.longest); i < list.length && list[i].at_s <= look.to; i++) {
    const query = list[i];
    const left = Math.max(x(query.at_s), -4);
    const end = x(query.at_s + query.took_s);
    if (end < 0 || !queryShown(query)) continue;
    const wide = Math.min(end, size.width + 4) - left;
    if (failed(query)) bad.push([query, left, wide]);
    else if (Math.max(end, left + 1.6) > covered + 0.5 || colour !== colourOf(query)) {
      good.push([query, left, wide]);
      covered = Math.max(end, left + 1.6);
      colour = colourOf(query);
    }
  }
  for (const [query, left, wide] of bad) waited(g, query, left, y + top, wide, high);
  for (const [query, left, wide] of good) answered(g, query, left, y + top, wide, high);
  for (const [query, left, wide] of bad) ended(g, query, left, y + top, wide, high);
  return good.length + bad.length;
}

function drawLookups(g, lane, y) {
  const { lookup: top } = h();
  const list = lane.lookups;
  if (!top || look.hidden.has("lookups")) return 0;
  let drawn = 0;
  for (let i = lowest(list, look.from - lane.longest); i < list.length && list[i].at_s <= look.to; i++) {
    const left = Math.max(-2, x(list[i].at_s));
    const right = x(list[i].at_s + list[i].took_s);
    if (right < 0 || !concerns(list[i])) continue;
    g.fillStyle = colours[list[i].found ? "purple" : "bad"];
    g.fillRect(left, y + top, Math.max(1.6, Math.min(right, size.width) - left), 1.6);
    drawn += 1;
  }
  return drawn;
}

const LOUD = new Set(["path opened", "path lost", "search failed"]);

/** Where events are crowded, ordinary kinds become small ticks, and important ones stay marks. */
function drawEvents(g, lane, y) {
  const { life, r } = h();
  const list = lane.events;
  const first = lowest(list, at(-6));
  const end = at(size.width + 6);
  const crowded = (lowest(list, end) - first) * 16 > size.width;
  const last = new Map(); // position of each kind's last mark, to skip marks that would cover it
  const loud = [];
  let drawn = 0;
  for (let i = first; i < list.length && list[i].at_s <= end; i++) {
    const event = list[i];
    if (!eventShown(event)) continue;
    const px = x(event.at_s);
    const quiet = crowded && !LOUD.has(event.kind);
    if (px - last.get(event.kind) < (quiet ? 1.5 : r * 0.7)) continue;
    last.set(event.kind, px);
    drawn += 1;
    const [shape, colour] = lookOf(event.kind);
    if (quiet) {
      g.fillStyle = colours[colour];
      g.globalAlpha = 0.65;
      g.fillRect(px - 0.6, y + life - r, 1.2, 2 * r);
      g.globalAlpha = 1;
    } else if (crowded) loud.push([shape, px, colour]);
    else stamp(g, shape, px, y + life, r, colours[colour]);
  }
  for (const [shape, px, colour] of loud) stamp(g, shape, px, y + life, r, colours[colour]);
  return drawn;
}
