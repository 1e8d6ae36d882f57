// The things under the pointer, and their descriptions.

const pointer = { x: null, y: 0, over: null, drag: null };

/** The overlay: the pointer's line, the span being dragged, and links to other lanes. */
function drawOver() {
  const g = fit($("over"), size.width, size.lanes);
  const { drag } = pointer;
  if (drag?.zooms) {
    const left = Math.min(drag.x, pointer.x);
    g.fillStyle = colours.direct;
    g.globalAlpha = 0.13;
    g.fillRect(left, 0, Math.abs(pointer.x - drag.x), size.lanes);
    g.globalAlpha = 1;
    g.fillRect(left, 0, 1, size.lanes);
    g.fillRect(left + Math.abs(pointer.x - drag.x) - 1, 0, 1, size.lanes);
    return;
  }
  const scrolled = $("lanes").scrollTop;
  const kept = look.kept;
  if (kept) {
    const row = look.rowOf.get(kept.lane.name);
    if (row !== undefined) connect(g, row, kept.things, scrolled, x(kept.at));
  } else if (pointer.over === "plot" && pointer.x !== null) {
    const under = beneath(pointer.x, pointer.y);
    if (under) connect(g, under.row, under.things, scrolled, pointer.x);
  }
}

function connect(g, row, things, scrolled, px) {
  g.strokeStyle = colours.faint;
  g.lineWidth = 1;
  g.setLineDash([3, 3]);
  g.beginPath();
  g.moveTo(Math.round(px) + 0.5, 0);
  g.lineTo(Math.round(px) + 0.5, size.lanes);
  g.stroke();
  g.setLineDash([]);
  g.save();
  g.translate(0, -scrolled);
  for (const { thing } of things.slice(0, 12)) {
    const other = thing.peer === undefined ? undefined : look.rowOf.get(thing.peer);
    if (other === undefined || other === row) continue;
    const colour = "outcome" in thing ? colourOf(thing) : "kind" in thing ? lookOf(thing.kind)[1] : "soft";
    thread(g, thing, row, other, colours[colour], 2);
  }
  g.restore();
}

/** The lane at a point of the plot, and what happened in it near there. */
function beneath(px, py) {
  const row = Math.floor((py + $("lanes").scrollTop) / h().lane);
  const lane = look.shown[row];
  if (!lane) return null;
  return { lane, row, at: at(px), things: happened(lane, at(px - NEAR), at(px), at(px + NEAR)) };
}

function happened(lane, from, when, to) {
  const things = [];
  for (let i = lowest(lane.events, from); i < lane.events.length && lane.events[i].at_s <= to; i++) {
    if (eventShown(lane.events[i])) things.push({ thing: lane.events[i], away: Math.abs(lane.events[i].at_s - when) });
  }
  const list = lane.queries;
  for (let i = lowest(list, from - lane.longest); i < list.length && list[i].at_s <= to; i++) {
    const query = list[i];
    const end = query.at_s + query.took_s;
    if (end < from || !queryShown(query)) continue;
    const inside = query.at_s <= when && when <= end;
    things.push({ thing: query, away: inside ? 0 : Math.min(Math.abs(query.at_s - when), Math.abs(end - when)) });
  }
  const looked = lane.lookups;
  for (let i = lowest(looked, from - lane.longest); i < looked.length && looked[i].at_s <= to; i++) {
    const end = looked[i].at_s + looked[i].took_s;
    if (end >= from && concerns(looked[i]) && !look.hidden.has("lookups")) things.push({ thing: looked[i], away: (to - from) / 2 });
  }
  // Nearest first, as those are probably meant; describe() then orders them by time.
  things.sort((a, b) => a.away - b.away);
  return things;
}

const TOLD_MAX = 7;

function describe({ lane, at: when, things }, told = TOLD_MAX) {
  const where = holding(lane.addresses, when) ?? lane.addresses[0];
  const content = [
    make("div", { className: "when" }, make("b", {}, lane.name), make("span", { className: "soft" }, exactlyInView(when))),
    make("div", { className: "soft" }, [lane.role, stateAt(lane, when), where?.address].filter(Boolean).join(" · ")),
  ];
  const ways = waysAt(lane, when);
  if (ways) content.push(make("div", { className: "soft" }, ways));
  for (const fault of lane.faults) {
    if (fault.from_s <= when && when <= fault.end) content.push(line(signFor("fault"), null, fault.text, "", true));
  }
  const first = things.slice(0, told).map(({ thing }) => thing).sort((a, b) => a.at_s - b.at_s);
  for (const thing of first) content.push(tell(thing));
  if (things.length > told) content.push(make("div", { className: "soft" }, `and ${number(things.length - told)} more here: zoom in to tell them apart`));
  return content;
}

function waysAt(lane, when) {
  if (look.focus && lane !== look.focus) {
    const there = holding(look.focus.ways.get(lane.name) ?? [], when);
    const back = holding(lane.ways.get(look.focus.name) ?? [], when);
    const parts = [];
    if (there) parts.push(`from ${look.focus.name}: ${wordsOfWay(there.way)}`);
    if (back) parts.push(`to ${look.focus.name}: ${wordsOfWay(back.way)}`);
    return parts.join(" · ");
  }
  const mix = holding(lane.mix, when);
  if (!mix) return "";
  const parts = [];
  if (mix.direct) parts.push(`${number(mix.direct)} directly`);
  if (mix.relay) parts.push(`${number(mix.relay)} by relay`);
  if (mix.none) parts.push(`${number(mix.none)} not any more`);
  return `reaches ${parts.join(", ")}`;
}

function tell(thing) {
  if ("outcome" in thing) {
    const by = thing.way && thing.way !== "none" ? `, ${wordsOfWay(thing.way)}` : "";
    return line(signFor("query", thing), thing.at_s, `query to ${thing.peer}`, `${thing.outcome} after ${lasting(thing.took_s)}${by}`, failed(thing));
  }
  if ("found" in thing) {
    return line(signFor("lookup", thing), thing.at_s, `lookup of ${thing.peer}`, `${thing.group} after ${lasting(thing.took_s)}`, !thing.found);
  }
  const whom = thing.peer === null ? "" : `: ${thing.peer}`;
  return line(signFor("event", thing), thing.at_s, `${thing.kind}${whom}`, thing.text, lookOf(thing.kind)[1] === "bad");
}

function line(sign, when, what, more = "", bad = false) {
  const text = make("div", { className: "what" }, what);
  if (more) text.append(make("span", {}, ` – ${more}`));
  return make(
    "div",
    { className: bad ? "row failed" : "row" },
    sign ?? make("span"),
    make("time", {}, when === null ? "" : exactlyInView(when)),
    text,
  );
}

const exactlyInView = (when) => moment(when, Math.max(1e-6, Math.min(1e-3, perPixel())));

/** A small picture of a thing's mark, for the legend and descriptions. */
function signFor(kind, thing) {
  const canvas = document.createElement("canvas");
  canvas.width = 18 * 2;
  canvas.height = 14 * 2;
  canvas.setAttribute("aria-hidden", "true");
  const g = canvas.getContext("2d");
  g.scale(2, 2);
  if (kind === "event") mark(g, lookOf(thing.kind)[0], 9, 7, 4, colours[lookOf(thing.kind)[1]]);
  else if (kind === "query" && !failed(thing)) answered(g, thing, 2, 4, 14, 6);
  else if (kind === "query") {
    waited(g, thing, 3, 4, 12, 6);
    ended(g, thing, 3, 4, 12, 6);
  } else if (kind === "state") lifeline(g, STATES[thing] ?? OTHER_STATE, 0, 18, 7);
  else if (kind === "way") strip(g, thing, 1, 4, 16, 6);
  else if (kind === "lookup") {
    g.fillStyle = colours[thing.found ? "purple" : "bad"];
    g.fillRect(2, 6, 14, 2);
  } else if (kind === "fault") {
    g.fillStyle = colours.bad;
    g.globalAlpha = 0.2;
    g.fillRect(1, 2, 16, 10);
    g.globalAlpha = 1;
    g.fillRect(1, 2, 2, 10);
  } else if (kind === "address") {
    g.fillStyle = colours.ink;
    g.beginPath();
    g.moveTo(9, 11);
    g.lineTo(5, 3);
    g.lineTo(13, 3);
    g.fill();
  } else if (kind === "thread") {
    g.strokeStyle = g.fillStyle = colours.soft;
    g.beginPath();
    g.moveTo(9, 0);
    g.lineTo(9, 9);
    g.stroke();
    g.beginPath();
    g.moveTo(9, 14);
    g.lineTo(6, 8);
    g.lineTo(12, 8);
    g.fill();
  } else if (kind === "claim") tick(g, thing, 9, 7);
  return canvas;
}

function showTip(content, left, top) {
  const tip = $("tip");
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const beside = left + 16 + width > innerWidth - 8 ? left - 16 - width : left + 16;
  const below = top + 16 + height > innerHeight - 8 ? top - 12 - height : top + 16;
  tip.style.left = `${Math.max(8, beside)}px`;
  tip.style.top = `${Math.max(8, below)}px`;
}

function hideTip() {
  if (look.kept) return;
  $("tip").hidden = true;
  for (const near of $("names").querySelectorAll(".near")) near.classList.remove("near");
}

function letGo() {
  look.kept = null;
  $("tip").classList.remove("kept");
  hideTip();
}

function hover(event) {
  const box = $("over").getBoundingClientRect();
  pointer.x = Math.max(0, Math.min(size.width, event.clientX - box.left));
  pointer.y = event.clientY - box.top;
  pointer.over = "plot";
  if (pointer.drag) drag(event);
  drawOver();
  if (pointer.drag || look.kept) return;
  hideTip();
  const under = beneath(pointer.x, pointer.y);
  if (!under) return;
  $("names").children[under.row]?.classList.add("near");
  showTip(describe(under), event.clientX, event.clientY);
}

/** Descriptions in the head: the sentences, faults and claims under the pointer. */
function hoverHead(event) {
  const box = $("head").getBoundingClientRect();
  const px = event.clientX - box.left;
  const py = event.clientY - box.top;
  if (pointer.drag) {
    dragOverview(px);
    return;
  }
  const inside = (thing) => thing.box && px >= thing.box.left - 4 && px <= thing.box.right + 4 && Math.abs(py - thing.box.y) <= FLAG / 2;
  const content = [];
  for (const sentence of run.story) if (inside(sentence)) content.push(line(null, sentence.at_s, sentence.text));
  for (const fault of run.faults) {
    if (!inside(fault)) continue;
    const span = fault.to_s === null ? "to the end" : `for ${lasting(fault.end - fault.from_s)}`;
    content.push(line(signFor("fault"), fault.from_s, fault.text, `${span}, ${fault.nodes.join(", ") || "all nodes"}`));
  }
  for (const sign of look.signs ?? []) {
    if (!inside(sign)) continue;
    for (const claim of sign.claims.slice(0, 12)) content.push(line(signFor("claim", claim.held), claim.at_s, claim.text, claim.detail, !claim.held));
  }
  if (look.kept) return;
  if (content.length) showTip(content, event.clientX, event.clientY);
  else hideTip();
  $("head").style.cursor = py <= OVERVIEW ? "ew-resize" : content.length ? "default" : "col-resize";
}
