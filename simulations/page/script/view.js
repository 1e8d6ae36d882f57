// The part of a run in view, and the position of times on the screen.

const HEIGHTS = {
  roomy: { lane: 46, life: 17, r: 4.3, query: 25, queryHigh: 6, lookup: 32.5, strip: 37, stripHigh: 6, text: 10 },
  close: { lane: 26, life: 7, r: 3.4, query: 12.5, queryHigh: 4, lookup: 17.5, strip: 20, stripHigh: 4, text: 0 },
  tiny: { lane: 13, life: 4, r: 2.2, query: 6.5, queryHigh: 2, lookup: 0, strip: 10, stripHigh: 2, text: 0 },
};
const OVERVIEW = 40; // the top of the head: the whole run
const FLAG = 19;
const RULER = 24;
const EDGE = 8; // pixels beside the span, for marks at its first and last moment
const NEAR = 6; // pixels around the pointer within which things count as under it
const THREADS_MAX = 260; // more lines between lanes would hide each other

let run; // the run shown
let sharpness = 1;
const look = {
  left: 0, // the view, as places on the axis
  right: 1,
  from: 0, // the view, as times
  to: 1,
  skips: false, // whether idle times are shortened
  focus: null,
  find: "",
  height: "roomy",
  wished: null, // the height that the user chose; if null, it depends on the number of lanes
  hidden: new Set(), // kinds of events and groups of queries not shown
  threads: true,
  shown: [], // lanes
  kept: null, // what the pinned description is about
  inView: false,
  failedOnly: false,
};
const size = { width: 0, lanes: 0, head: 0 };
const h = () => HEIGHTS[look.height];
/** The place of a time on the axis: the same number, unless idle times are skipped. */
const place = (at) => (look.skips ? bent(at, "at", "place") : at);
const timeOf = (where) => (look.skips ? bent(where, "place", "at") : where);
const breadth = () => size.width - 2 * EDGE;
const x = (at) => EDGE + ((place(at) - look.left) / (look.right - look.left)) * breadth();
const perPixel = () => (look.right - look.left) / breadth();
const placeAt = (px) => look.left + (px - EDGE) * perPixel();
const at = (px) => timeOf(placeAt(px));
const length = () => place(run.ended);
const across = (when) => EDGE + (place(when) / length()) * breadth();
const placeAcross = (px) => ((px - EDGE) / breadth()) * length();

function bent(value, from, to) {
  const { bends } = run;
  const last = bends.length - 1;
  const i = Math.max(1, Math.min(last, lowest(bends, value, from)));
  const [a, b] = [bends[i - 1], bends[i]];
  if (value <= bends[0][from] || value >= bends[last][from]) {
    const end = value <= bends[0][from] ? bends[0] : bends[last];
    return end[to] + value - end[from];
  }
  return a[to] + ((value - a[from]) / (b[from] - a[from])) * (b[to] - a[to]);
}

/** The skipped idle times in view. */
const skipped = () => (look.skips ? run.bends.flatMap((bend, i) => {
  const next = run.bends[i + 1];
  return bend.idle && next.at > look.from && bend.at < look.to ? [{ from: bend.at, to: next.at }] : [];
}) : []);

function choose() {
  const wanted = look.find.trim().toLowerCase();
  const named = (lane) => !wanted || lane.name.toLowerCase().includes(wanted) || lane.role.toLowerCase() === wanted;
  const focus = look.focus;
  if (focus) {
    const others = run.lanes.filter((lane) => lane !== focus && focus.related.has(lane.name) && named(lane));
    const close = others.filter((lane) => focus.close.has(lane.name));
    // Half the network may know its record: show those only if there is nobody closer.
    look.shown = [focus, ...(focus.close.size ? close : others)];
  } else look.shown = run.lanes.filter(named);
  const amount = look.shown.length;
  look.height = look.wished ?? (amount * HEIGHTS.roomy.lane <= room() ? "roomy" : amount <= 60 ? "close" : "tiny");
  look.shown.forEach((lane, row) => { lane.row = row; });
  look.rowOf = new Map(look.shown.map((lane, row) => [lane.name, row]));
}

/** Whether something with a node and a peer is shown under the current focus. */
const concerns = (thing) => !look.focus || thing.node === look.focus.name || thing.peer === look.focus.name;
const eventShown = (event) => !look.hidden.has(`event ${event.kind}`) && concerns(event);
const queryShown = (query) => !look.hidden.has(`query ${query.group}`) && concerns(query);

function fit(canvas, width, height) {
  const wide = Math.round(width * sharpness);
  const high = Math.round(height * sharpness);
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const g = canvas.getContext("2d");
  g.setTransform(sharpness, 0, 0, sharpness, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}

/** The layout of the head: overview, flags of the story, faults, claims, ruler. */
function headRows() {
  const sentences = run.story.length;
  const flags = sentences === 0 ? 0 : sentences <= 2 ? 1 : sentences <= 5 ? 2 : 3;
  const ends = [];
  for (const fault of run.faults) {
    let row = ends.findIndex((end) => end <= fault.from_s);
    if (row < 0) row = ends.length < 4 ? ends.length : 3;
    fault.row = row;
    ends[row] = Math.max(ends[row] ?? 0, fault.end);
  }
  const head = { flags, faults: ends.length, claims: run.expectations.length ? 1 : 0 };
  head.flagsTop = OVERVIEW + 7;
  head.faultsTop = head.flagsTop + flags * FLAG;
  head.claimsTop = head.faultsTop + ends.length * FLAG;
  head.rulerTop = head.claimsTop + head.claims * FLAG;
  head.high = head.rulerTop + RULER;
  return head;
}

/** The step of the ruler in seconds, a round number as people count time. */
function stepFor(room) {
  const least = perPixel() * room;
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  if (least > 86400) {
    const scale = 86400 * 10 ** Math.floor(Math.log10(least / 86400));
    return [1, 2, 5, 10].map((n) => n * scale).find((step) => step >= least);
  }
  if (least > 0.5) return steps.find((step) => step >= least);
  const scale = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * scale).find((step) => step >= least * 0.999999);
}
function* ticks(room) {
  const step = stepFor(room);
  const idle = skipped();
  let from = look.from;
  let last = -Infinity;
  for (const to of [...idle.map((span) => span.from), look.to]) {
    // Right after a skipped time, show where the axis goes on.
    const first = from > look.from && x(from) - last > room * 0.7 ? [from] : [];
    for (let n = Math.ceil(from / step - 1e-9); n * step <= to; n++) first.push(n * step);
    for (const when of first) {
      if (x(when) - last < room * 0.7) continue;
      last = x(when);
      yield [when, step];
    }
    from = idle.shift()?.to;
  }
}

function draw() {
  cancelAnimationFrame(due);
  due = 0;
  size.width = $("plot-box").clientWidth;
  sharpness = window.devicePixelRatio || 1;
  const marks = drawHead() + drawPlot();
  drawOver();
  Object.assign(root.dataset, {
    first: across(0),
    last: across(run.ended),
    marks,
    from: look.from.toFixed(6),
    to: look.to.toFixed(6),
    lanes: look.shown.length,
  });
}

let due = 0;
function redraw() {
  if (!due) due = requestAnimationFrame(draw);
}
