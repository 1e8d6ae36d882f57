// The script of the page: reads the runs, draws one of them, and lets a person look closer.
//
// Its parts, in this order: words for numbers and times; reading a run into lanes; marks and
// colours; the picture (a canvas that is drawn for the visible span and lanes only); what is
// under the pointer; distributions; tables; and the page that holds them together.
// Whatever was recorded reaches the screen as text, never as markup.
"use strict";

(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);

  const problems = [];
  function complain(text) {
    problems.push(text);
    root.dataset.errors = problems.join("\n");
    $("trouble").textContent = `This page could not be drawn as it should be.\n${problems.join("\n")}`;
    $("trouble").hidden = false;
  }
  window.addEventListener("error", (e) => complain(`${e.message} (line ${e.lineno})`));
  window.addEventListener("unhandledrejection", (e) => complain(String(e.reason)));

  /** An element with properties, data attributes and children; strings become text. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    const { data, ...rest } = properties;
    Object.assign(element, rest);
    Object.assign(element.dataset, data);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  /** A table that knows its own entries only: a kind of event may be named "constructor". */
  const known = (entries) => Object.assign(Object.create(null), entries);

  // ---------------------------------------------------------------------------------------------
  // Words

  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const number = (n) => grouped.format(n);
  const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

  /** Three digits that count. */
  function digits(value) {
    const size = Math.abs(value);
    if (size >= 99.95 || size === 0) return number(value);
    if (size >= 9.995) return value.toFixed(1);
    if (size >= 0.9995) return value.toFixed(2);
    return String(Number(value.toPrecision(3)));
  }

  /** How long something took. */
  function lasting(s) {
    if (s === null || s === undefined) return "–";
    if (s === 0) return "0 s";
    if (s < 0.9995e-3) return `${digits(s * 1e6)} µs`;
    if (s < 0.9995) return `${digits(s * 1e3)} ms`;
    if (s < 120) return `${digits(s)} s`;
    if (s < 7200) return `${digits(s / 60)} min`;
    return s < 172800 ? `${digits(s / 3600)} h` : `${digits(s / 86400)} d`;
  }

  /** How long the marks of an axis are: powers of ten, in as few signs as can be. */
  function onAxis(s) {
    if (s >= 0.9995) return `${number(s)} s`;
    return s >= 0.9995e-3 ? `${number(s * 1e3)} ms` : `${number(s * 1e6)} µs`;
  }

  /** A moment of the run, as fine as `step` seconds. */
  function moment(at, step) {
    const places = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));
    if (run.ended < 180) return `${at.toFixed(places)} s`;
    let rest = Number(at.toFixed(places));
    const days = Math.floor(rest / 86400);
    rest -= days * 86400;
    const hours = Math.floor(rest / 3600);
    const minutes = Math.floor((rest % 3600) / 60);
    const seconds = (rest % 60).toFixed(places).padStart(places ? places + 3 : 2, "0");
    const padded = String(minutes).padStart(2, "0");
    const clock = hours || days ? `${hours}:${padded}:${seconds}` : `${minutes}:${seconds}`;
    return days ? `${days} d ${clock}` : clock;
  }

  const exactly = (at) => moment(at, run.ended < 180 ? 1e-3 : run.ended < 7200 ? 0.01 : 0.1);

  /** A figure's value by the unit that its name ends in. */
  function figure(name, value) {
    const at = name.lastIndexOf("_");
    const unit = at < 0 ? "" : name.slice(at + 1);
    const what = (at < 0 ? name : name.slice(0, at)).replaceAll("_", " ");
    if (value === null) return { what, value: "–", unit };
    if (unit === "s") {
      const [amount, of = ""] = lasting(value).split(" ");
      return { what, value: amount, unit: of };
    }
    return { what, value: Number.isInteger(value) ? number(value) : digits(value), unit };
  }

  // ---------------------------------------------------------------------------------------------
  // Reading a run

  /** Rows of a recorded table as objects, in order of time. */
  function rows(table, by = "at_s") {
    const { columns, rows: lines } = table;
    const all = lines.map((line) => {
      const row = {};
      for (let i = 0; i < columns.length; i++) row[columns[i]] = line[i];
      return row;
    });
    // The sort is stable: what happened at the same time stays in the order of its telling.
    return columns.includes(by) ? all.sort((a, b) => a[by] - b[by]) : all;
  }

  function newLane(name, role) {
    return {
      name,
      role,
      states: [],
      addresses: [],
      events: [],
      queries: [],
      lookups: [],
      faults: [],
      ways: new Map(), // peer -> changes of the way to it
      mix: [], // how many peers are reached which way, from when on
      related: new Set(), // names of those it had to do with
      close: new Set(), // and of those among them that it had a path or a question to
      longest: 0, // query or lookup, in seconds
    };
  }

  function read(data) {
    const lanes = new Map();
    const laneOf = (name) => {
      if (!lanes.has(name)) lanes.set(name, newLane(name, ""));
      return lanes.get(name);
    };
    for (const { name, role } of rows(data.nodes)) if (!lanes.has(name)) lanes.set(name, newLane(name, role));
    const kinds = new Map();
    const met = (name, peer, closely = true) => {
      if (peer === null || peer === name) return;
      for (const [one, other] of [[lanes.get(name), peer], [lanes.get(peer), name]]) {
        one?.related.add(other);
        if (closely) one?.close.add(other);
      }
    };

    for (const state of rows(data.states)) laneOf(state.node).states.push(state);
    for (const address of rows(data.addresses)) laneOf(address.node).addresses.push(address);
    const events = rows(data.events);
    for (const event of events) {
      laneOf(event.node).events.push(event);
      kinds.set(event.kind, (kinds.get(event.kind) ?? 0) + 1);
      met(event.node, event.peer, false);
    }
    const queries = rows(data.queries);
    for (const query of queries) {
      const lane = laneOf(query.node);
      query.group = groupOf(query);
      lane.queries.push(query);
      lane.longest = Math.max(lane.longest, query.took_s);
      met(query.node, query.peer);
    }
    const lookups = rows(data.lookups);
    for (const lookup of lookups) {
      lookup.group = lookup.found ? "found" : "not found";
      const lane = laneOf(lookup.node);
      lane.lookups.push(lookup);
      lane.longest = Math.max(lane.longest, lookup.took_s);
      met(lookup.node, lookup.peer);
    }
    const paths = rows(data.paths);
    for (const change of paths) {
      const { ways } = laneOf(change.node);
      if (!ways.has(change.peer)) ways.set(change.peer, []);
      ways.get(change.peer).push(change);
      met(change.node, change.peer);
    }
    const faults = rows(data.faults, "from_s");
    for (const fault of faults) {
      fault.end = fault.to_s ?? data.ended_s;
      const struck = fault.nodes.length ? fault.nodes : [...lanes.keys()];
      for (const name of struck) lanes.get(name)?.faults.push(fault);
    }
    for (const lane of lanes.values()) lane.mix = mixed(lane);

    const expectations = rows(data.expectations);
    const story = rows(data.story);
    const ended = Math.max(data.ended_s, 1e-6);
    const ends = queries.map((query) => query.at_s + query.took_s);
    const told = [events, queries, lookups, paths, story, expectations].flatMap((list) => list.map(({ at_s }) => at_s));
    const changed = [...lanes.values()].flatMap((lane) => [...lane.states, ...lane.addresses].map(({ at_s }) => at_s));
    const faulty = faults.flatMap((fault) => [fault.from_s, fault.end]);
    return {
      data,
      ended,
      bends: bendsOf(Float64Array.from([0, ended, ...told, ...changed, ...ends, ...faulty]).sort(), ended),
      lanes: [...lanes.values()],
      kinds: [...kinds.keys()].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1)),
      groups: [...new Set(queries.map((query) => query.group))].sort(),
      ways: new Set(paths.map((change) => change.way)),
      states: new Set([...lanes.values()].flatMap((lane) => lane.states.map((s) => s.state))),
      events,
      queries,
      lookups,
      paths,
      faults,
      story,
      expectations,
      failed: expectations.filter((claim) => !claim.held).length,
    };
  }

  /** Where the axis of time bends if idle times are to be short: [time, place], where places are
      like seconds, but for the idle times between. */
  function bendsOf(times, ended) {
    let idle = [];
    let total = ended;
    for (let turn = 0; turn < 5; turn++) {
      const long = Math.max(total / 25, ended / 400);
      const margin = total / 120;
      const found = [];
      for (let i = 1; i < times.length; i++) {
        if (times[i] - times[i - 1] > long) found.push([times[i - 1] + margin, times[i] - margin]);
      }
      const left = found.reduce((sum, [from, to]) => sum - (to - from), ended) + (found.length * total) / 50;
      if (!found.length || left > total * 0.8 || left < ended * 0.001) break;
      idle = found.map(([from, to]) => ({ from, to, wide: total / 50 }));
      total = left;
    }
    const bends = [{ at: 0, place: 0 }];
    let lost = 0;
    for (const { from, to, wide } of idle) {
      bends.push({ at: from, place: from - lost, idle: true });
      lost += to - from - wide;
      bends.push({ at: to, place: to - lost });
    }
    bends.push({ at: ended, place: ended - lost });
    return bends;
  }

  /** How many peers a lane reaches directly, through relays and not at all, after each change. */
  function mixed(lane) {
    const changes = [...lane.ways.values()].flat().sort((a, b) => a.at_s - b.at_s);
    const now = new Map();
    const tally = known({ direct: 0, relay: 0, none: 0 });
    return changes.map(({ at_s, peer, way }) => {
      if (now.has(peer)) tally[now.get(peer)] -= 1;
      const counted = way in tally ? way : "none";
      now.set(peer, counted);
      tally[counted] += 1;
      return { at_s, ...tally };
    });
  }

  /** Where in `list` the first thing with a `key` of at least `at` is. */
  function lowest(list, at, key = "at_s") {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][key] < at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The last thing in `list` that is not after `at`: what holds then. */
  function holding(list, at) {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].at_s <= at) low = middle + 1;
      else high = middle;
    }
    return list[low - 1];
  }

  const stateAt = (lane, at) => {
    const state = holding(lane.states, at);
    return state ? state.state : lane.states.length ? "not yet there" : "up";
  };

  // ---------------------------------------------------------------------------------------------
  // Marks and colours

  const colours = {};
  function readColours() {
    const style = getComputedStyle(root);
    for (const name of [
      "ground", "panel", "line", "grid", "ink", "soft", "faint", "direct", "relay", "none", "good",
      "bad", "bad-ink", "sky", "purple", "yellow", "shade", "sans", "mono",
    ]) colours[name] = style.getPropertyValue(`--${name}`).trim();
  }

  const KINDS = known({
    dial: ["arrow", "soft"],
    "path opened": ["dot", "good"],
    "path lost": ["cross", "bad"],
    "record learned": ["frame", "purple"],
    "record published": ["square", "purple"],
    "search failed": ["diamond", "bad"],
  });
  const RANKS = Object.keys(KINDS);
  const rank = (kind) => (RANKS.indexOf(kind) + 1 || RANKS.length + 1);
  const OTHERS = [["ring", "direct"], ["ring", "yellow"], ["ring", "sky"], ["ring", "soft"]];
  function lookOf(kind) {
    if (KINDS[kind]) return KINDS[kind];
    const others = run.kinds.filter((name) => !KINDS[name]);
    return OTHERS[Math.min(others.indexOf(kind), OTHERS.length - 1)] ?? OTHERS[3];
  }

  const STATES = known({
    up: { colour: "good", dash: [], width: 2, alpha: 0.75 },
    asleep: { colour: "sky", dash: [5, 4], width: 2, alpha: 1 },
    down: { colour: "bad", dash: [2, 3], width: 2, alpha: 1 },
    gone: { colour: "none", dash: [1, 5], width: 1, alpha: 1 },
  });
  const OTHER_STATE = { colour: "purple", dash: [8, 3], width: 2, alpha: 1 };

  const WAYS = known({ direct: "direct", relay: "relay", none: "none" });
  const WAY_WORDS = known({ direct: "direct", relay: "relayed", none: "no path" });
  const wordsOfWay = (way) => WAY_WORDS[way] ?? way;
  const OUTCOMES = known({
    "fast fail": "purple",
    "hard timeout": "bad",
    "handler failed": "yellow",
    open: "faint",
    cancelled: "faint",
    "node closed": "faint",
  });

  /** What a query counts as: its outcome, and for a reply the way that it came by. */
  function groupOf({ way, outcome }) {
    const by = way === "" || way === "none" ? "" : `, ${wordsOfWay(way)}`;
    return `${outcome}${by}`;
  }
  const failed = (query) => query.outcome !== "reply" && query.outcome !== "open";
  function colourOf({ way, outcome }) {
    return outcome === "reply" ? (WAYS[way] ?? "soft") : (OUTCOMES[outcome] ?? "yellow");
  }

  /** A mark with a thin rim of the ground's colour, so that it stands out of what it is on. */
  function mark(g, shape, x, y, r, colour) {
    const path = new Path2D();
    const hollow = shape === "frame" || shape === "ring" || shape === "arrow";
    if (shape === "dot" || shape === "ring") path.arc(x, y, r, 0, 2 * Math.PI);
    else if (shape === "square" || shape === "frame") path.rect(x - r * 0.85, y - r * 0.85, r * 1.7, r * 1.7);
    else if (shape === "diamond") polygon(path, [x, y - r * 1.3], [x + r * 1.3, y], [x, y + r * 1.3], [x - r * 1.3, y]);
    else if (shape === "arrow") polygon(path, [x - r * 0.7, y - r], [x + r, y], [x - r * 0.7, y + r]);
    else if (shape === "cross") {
      const d = r * 0.85;
      path.moveTo(x - d, y - d);
      path.lineTo(x + d, y + d);
      path.moveTo(x + d, y - d);
      path.lineTo(x - d, y + d);
    }
    g.lineJoin = "round";
    g.lineCap = "round";
    g.strokeStyle = colours.ground;
    if (shape === "cross") {
      g.lineWidth = r * 0.5 + 2.6;
      g.stroke(path);
      g.strokeStyle = colour;
      g.lineWidth = r * 0.5;
      g.stroke(path);
      return;
    }
    g.lineWidth = hollow ? 3.4 : 2;
    g.stroke(path);
    g.fillStyle = hollow ? colours.ground : colour;
    g.fill(path);
    if (hollow) {
      g.strokeStyle = colour;
      g.lineWidth = 1.4;
      g.stroke(path);
    }
  }
  function polygon(path, first, ...others) {
    path.moveTo(...first);
    for (const point of others) path.lineTo(...point);
    path.closePath();
  }

  /** Marks that recur are drawn once and copied: that is what makes thousands of them quick. */
  let stamps = new Map();
  function stamp(g, shape, x, y, r, colour) {
    const key = `${shape} ${r} ${colour}`;
    let image = stamps.get(key);
    const half = Math.ceil(r * 1.3 + 3);
    if (!image) {
      image = document.createElement("canvas");
      image.width = image.height = 2 * half * sharpness;
      const inner = image.getContext("2d");
      inner.scale(sharpness, sharpness);
      mark(inner, shape, half, half, r, colour);
      stamps.set(key, image);
    }
    g.drawImage(image, x - half, y - half, 2 * half, 2 * half);
  }

  function lifeline(g, style, from, to, y) {
    g.globalAlpha = style.alpha;
    g.strokeStyle = colours[style.colour];
    g.lineWidth = h().lane > 13 ? style.width : style.width * 0.6;
    g.lineCap = "butt";
    g.setLineDash(style.dash);
    g.beginPath();
    g.moveTo(from, y);
    g.lineTo(to, y);
    g.stroke();
    g.setLineDash([]);
    g.globalAlpha = 1;
  }

  /** A stretch of a path in use: full, half or a hairline high, so that it reads without colour. */
  function strip(g, way, x, y, width, height) {
    g.fillStyle = colours[WAYS[way] ?? "none"];
    if (way === "direct") g.fillRect(x, y, width, height);
    else if (way === "relay") {
      g.globalAlpha = 0.28;
      g.fillRect(x, y, width, height);
      g.globalAlpha = 1;
      g.fillRect(x, y + height / 2, width, height / 2);
    } else g.fillRect(x, y + height - 1, width, 1);
  }

  function answered(g, query, x, y, width, height) {
    g.fillStyle = colours[colourOf(query)];
    g.globalAlpha = 0.85;
    g.fillRect(x, y, Math.max(width, 1.6), height);
    g.globalAlpha = 1;
  }
  /** Most of what failed is waiting; the moment that counts is its end. */
  function waited(g, query, x, y, width, height) {
    g.fillStyle = colours[colourOf(query)];
    g.globalAlpha = 0.4;
    g.fillRect(x, y, width, height);
    g.globalAlpha = 1;
  }
  function ended(g, query, x, y, width, height) {
    g.fillStyle = colours[colourOf(query)];
    g.fillRect(x + Math.max(0, width - 3), y - height / 4, 3, height * 1.5);
  }

  // ---------------------------------------------------------------------------------------------
  // The picture

  const HEIGHTS = {
    roomy: { lane: 46, life: 17, r: 4.3, query: 25, queryHigh: 6, lookup: 32.5, strip: 37, stripHigh: 6, text: 10 },
    close: { lane: 26, life: 7, r: 3.4, query: 12.5, queryHigh: 4, lookup: 17.5, strip: 20, stripHigh: 4, text: 0 },
    tiny: { lane: 13, life: 4, r: 2.2, query: 6.5, queryHigh: 2, lookup: 0, strip: 10, stripHigh: 2, text: 0 },
  };
  const OVERVIEW = 40; // the top of the head: the whole run
  const FLAG = 19;
  const RULER = 24;
  const NEAR = 6; // pixels between the pointer and what it means
  const THREADS_MAX = 260; // more lines between lanes than this hide what they show

  let run; // the one that is shown
  let sharpness = 1;
  const look = {
    left: 0, // what is in view, as places on the axis
    right: 1,
    from: 0, // and as times
    to: 1,
    skips: false, // whether idle times are short
    focus: null,
    find: "",
    height: "roomy",
    wished: null, // the height that a person chose; else it depends on how many lanes there are
    hidden: new Set(), // kinds of events, and groups of queries, that are not shown
    threads: true,
    shown: [], // lanes
    kept: null, // what a click keeps the description of
    inView: false,
    failedOnly: false,
  };
  const size = { width: 0, lanes: 0, head: 0 };
  const h = () => HEIGHTS[look.height];
  /** Where a time is on the axis: the same, unless idle times are skipped. */
  const place = (at) => (look.skips ? bent(at, "at", "place") : at);
  const timeOf = (where) => (look.skips ? bent(where, "place", "at") : where);
  const x = (at) => ((place(at) - look.left) / (look.right - look.left)) * size.width;
  const at = (px) => timeOf(look.left + (px / size.width) * (look.right - look.left));
  const perPixel = () => (look.right - look.left) / size.width;
  const length = () => place(run.ended);
  const across = (when) => (place(when) / length()) * size.width;

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

  /** The idle times that are skipped, as far as they are in view. */
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
      // Half the network may have a record of it: they are shown if there is nobody closer.
      look.shown = [focus, ...(focus.close.size ? close : others)];
    } else look.shown = run.lanes.filter(named);
    const amount = look.shown.length;
    look.height = look.wished ?? (amount * HEIGHTS.roomy.lane <= room() ? "roomy" : amount <= 60 ? "close" : "tiny");
    look.shown.forEach((lane, row) => { lane.row = row; });
    look.rowOf = new Map(look.shown.map((lane, row) => [lane.name, row]));
  }

  /** Whether something with a node and a peer is to be seen, as the focus has it. */
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

  /** The head's rows: overview, flags of the story, faults, what was expected, ruler. */
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

  /** Steps of the ruler, in seconds: as people count. */
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
      // After a time that was skipped it is said at once when this is.
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

  /** As much of `text` as there is room for. */
  function cut(g, text, room) {
    if (g.measureText(text).width <= room) return text;
    let low = 0;
    let high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (g.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    return low > 1 ? `${text.slice(0, low)}…` : "";
  }

  function drawHead() {
    const head = run.head;
    const g = fit($("head"), size.width, head.high);
    size.head = head.high;
    const drawn = drawOverview(g) + drawFlags(g, head) + drawFaultBars(g, head) + drawClaims(g, head);
    g.font = `11px ${colours.sans}`;
    g.textBaseline = "middle";
    g.fillStyle = colours.soft;
    g.strokeStyle = colours.line;
    g.lineWidth = 1;
    for (const [when, step] of ticks(96)) {
      const px = Math.round(x(when)) + 0.5;
      g.beginPath();
      g.moveTo(px, head.high - 6);
      g.lineTo(px, head.high);
      g.stroke();
      const text = moment(when, step);
      const wide = g.measureText(text).width;
      g.textAlign = "left";
      g.fillText(text, Math.max(2, Math.min(px - wide / 2, size.width - wide - 2)), head.rulerTop + 9);
    }
    for (const idle of skipped()) {
      const [left, right] = [x(idle.from), x(idle.to)];
      g.fillStyle = hatch(g);
      g.fillRect(left, head.high - 7, right - left, 7);
    }
    return drawn;
  }

  /** The whole run in a strip: how much happened, what failed, and the span that is in view. */
  function drawOverview(g) {
    const { width } = size;
    const top = 5;
    const high = OVERVIEW - top - 3;
    for (const fault of run.faults) {
      g.fillStyle = colours.shade;
      g.fillRect(across(fault.from_s), top, Math.max(1, across(fault.end) - across(fault.from_s)), high);
    }
    const cell = 3;
    const cells = Math.max(1, Math.ceil(width / cell));
    if (run.density?.cells !== cells || run.density.skips !== look.skips) run.density = density(cells);
    const { all, bad, most } = run.density;
    const scaled = (n) => (n ? Math.max(2, Math.cbrt(n / most) * (high - 2)) : 0);
    for (let i = 0; i < cells; i++) {
      if (!all[i]) continue;
      const whole = scaled(all[i]);
      g.fillStyle = colours.faint;
      g.globalAlpha = 0.6;
      g.fillRect(i * cell, top + high - whole, cell - 1, whole);
      g.globalAlpha = 1;
      if (bad[i]) {
        g.fillStyle = colours.bad;
        const part = Math.max(3, (bad[i] / all[i]) * whole);
        g.fillRect(i * cell, top + high - part, cell - 1, part);
      }
    }
    for (const claim of run.expectations) {
      if (claim.held) continue;
      g.fillStyle = colours.bad;
      g.fillRect(across(claim.at_s) - 1, top, 2, high);
    }
    const from = across(look.from);
    const to = across(look.to);
    g.fillStyle = colours.panel;
    g.globalAlpha = 0.75;
    g.fillRect(0, top - 1, from, high + 2);
    g.fillRect(to, top - 1, width - to, high + 2);
    g.globalAlpha = 1;
    g.strokeStyle = colours.faint;
    g.lineWidth = 1;
    g.strokeRect(from + 0.5, top - 0.5, Math.max(1, to - from - 1), high + 1);
    return cells;
  }

  function density(cells) {
    const all = new Uint32Array(cells);
    const bad = new Uint32Array(cells);
    const cellOf = (when) => Math.max(0, Math.min(cells - 1, Math.floor((place(when) / length()) * cells)));
    for (const event of run.events) {
      all[cellOf(event.at_s)] += 1;
      if (event.kind === "search failed") bad[cellOf(event.at_s)] += 1;
    }
    for (const query of run.queries) {
      all[cellOf(query.at_s)] += 1;
      if (failed(query)) bad[cellOf(query.at_s)] += 1;
    }
    return { cells, skips: look.skips, all, bad, most: all.reduce((a, b) => Math.max(a, b), 1) };
  }

  const WORDS_MIN = 110; // pixels: less of a sentence says nothing

  /** As on a map: a sentence is written where there is room for a good part of it; the others are
      poles that tell under the pointer. The last one that is out of view on the left is still
      what the story is at. */
  function drawFlags(g, head) {
    if (!head.flags) return 0;
    g.textBaseline = "middle";
    g.textAlign = "left";
    g.font = `12px ${colours.sans}`;
    const labels = []; // in each row the last one
    const written = [];
    const current = lowest(run.story, look.from) - 1;
    let drawn = 0;
    run.story.forEach((sentence, i) => {
      sentence.box = null;
      const from = x(sentence.at_s);
      if (from > size.width || (from < 0 && i !== current)) return;
      drawn += 1;
      const label = { sentence, from, left: Math.max(from, 0), wide: g.measureText(sentence.text).width };
      label.right = Math.min(label.left + 8 + label.wide, size.width - 4);
      label.row = rowFor(label, labels, head.flags);
      if (label.row >= 0) {
        labels[label.row] = label;
        written.push(label);
      }
      const y = head.flagsTop + (Math.max(0, label.row) + 0.5) * FLAG;
      sentence.box = { left: label.left, right: label.row >= 0 ? label.right : label.left, y };
      if (from < 0) return;
      const px = Math.round(from) + 0.5;
      g.strokeStyle = colours.none;
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(px, y);
      g.lineTo(px, head.high);
      g.stroke();
      g.fillStyle = label.row >= 0 ? colours.soft : colours.none;
      g.fillRect(px - 0.5, y - FLAG / 2 + 3, label.row >= 0 ? 3 : 1, FLAG - 6);
    });
    for (const { sentence, from, left, right } of written) {
      const { y } = sentence.box;
      const text = cut(g, sentence.text, right - left - 7);
      g.fillStyle = colours.panel;
      g.fillRect(left + 4, y - FLAG / 2 + 2, g.measureText(text).width + 5, FLAG - 4);
      g.fillStyle = from >= 0 ? colours.ink : colours.faint;
      g.fillText(text, left + 6, y + 0.5);
      sentence.box.right = right;
    }
    return drawn;
  }

  /** A free row, or the one whose sentence has been read the longest and can be cut short. */
  function rowFor(label, labels, most) {
    if (size.width - label.left < Math.min(WORDS_MIN, label.wide + 12)) return -1;
    for (let row = 0; row < most; row++) if (!labels[row] || labels[row].right + 10 < label.left) return row;
    const oldest = labels.reduce((a, b) => (a.left <= b.left ? a : b));
    if (label.left - oldest.left < WORDS_MIN) return -1;
    oldest.right = label.left - 8;
    return oldest.row;
  }

  function drawFaultBars(g, head) {
    let drawn = 0;
    g.font = `11.5px ${colours.sans}`;
    for (const fault of run.faults) {
      const from = x(fault.from_s);
      const to = x(fault.end);
      fault.box = null;
      if (to < 0 || from > size.width) continue;
      const y = head.faultsTop + fault.row * FLAG + 2;
      const left = Math.max(from, 0);
      const width = Math.max(3, Math.min(to, size.width) - left);
      g.globalAlpha = 0.2;
      g.fillStyle = colours.bad;
      g.fillRect(left, y, width, FLAG - 4);
      g.globalAlpha = 1;
      g.fillRect(left, y, 2, FLAG - 4);
      if (fault.to_s !== null && to <= size.width) g.fillRect(left + width - 2, y, 2, FLAG - 4);
      g.fillStyle = colours["bad-ink"];
      // The words are in the bar if it is long enough, and else beside it, up to the next one.
      const within = g.measureText(fault.text).width <= width - 14;
      const next = run.faults.find((other) => other.row === fault.row && other.from_s > fault.from_s);
      const beside = Math.min(next ? x(next.from_s) : size.width, size.width) - left - width - 12;
      const inside = within || beside < width;
      const text = cut(g, fault.text, inside ? width - 14 : beside);
      const start = inside ? left + 7 : left + width + 5;
      if (text) g.fillText(text, start, y + (FLAG - 4) / 2 + 0.5);
      fault.box = { left, right: Math.max(left + width, text ? start + g.measureText(text).width : 0), y: y + FLAG / 2 };
      drawn += 1;
    }
    return drawn;
  }

  /** Claims that are made together are one sign, with how many they are. */
  function drawClaims(g, head) {
    const y = head.claimsTop + FLAG / 2;
    const signs = [];
    for (const claim of run.expectations) {
      const px = x(claim.at_s);
      if (px < -8 || px > size.width + 8) continue;
      const last = signs[signs.length - 1];
      if (last && px - last.px < 26) last.claims.push(claim);
      else signs.push({ px, claims: [claim] });
    }
    signs.forEach((sign, i) => {
      const bad = sign.claims.filter((claim) => !claim.held);
      const px = Math.max(6, Math.min(sign.px, size.width - 6));
      tick(g, bad.length === 0, px, y);
      g.font = `11px ${colours.sans}`;
      g.textBaseline = "middle";
      g.fillStyle = bad.length ? colours["bad-ink"] : colours.faint;
      const next = signs[i + 1]?.px ?? size.width;
      let text = sign.claims.length > 1 ? String(sign.claims.length) : "";
      if (bad.length) text = cut(g, `${sign.claims.length > 1 ? `${bad.length} of ${sign.claims.length}: ` : ""}${bad[0].text}`, next - px - 22) || text;
      let wide = g.measureText(text).width;
      let left = px + 8;
      if (bad.length && text.length < 12) {
        // At the right edge the words are on the left of their sign, if that is free.
        const room = px - (signs[i - 1]?.px ?? 0) - 46;
        const other = cut(g, bad[0].text, room);
        if (room > WORDS_MIN) [text, wide] = [other, g.measureText(other).width];
        if (room > WORDS_MIN) left = px - 9 - wide;
      }
      if (left + wide < size.width) g.fillText(text, left, y + 0.5);
      sign.box = { left: Math.min(px - 6, left), right: Math.max(px + 6, left + wide), y };
    });
    look.signs = signs;
    return signs.length;
  }

  function tick(g, held, px, y) {
    g.strokeStyle = held ? colours.good : colours.bad;
    g.lineWidth = held ? 1.8 : 2.4;
    g.lineCap = "round";
    g.lineJoin = "round";
    g.beginPath();
    if (held) {
      g.moveTo(px - 4, y);
      g.lineTo(px - 1, y + 3.2);
      g.lineTo(px + 4, y - 3.6);
    } else {
      g.moveTo(px - 4, y - 4);
      g.lineTo(px + 4, y + 4);
      g.moveTo(px + 4, y - 4);
      g.lineTo(px - 4, y + 4);
    }
    g.stroke();
  }

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
    // What was not recorded is not the same as nothing having happened.
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

  /** Lines of the story, and of what failed, from the head down through the lanes. */
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

  /** Queries as lines from lane to lane, while they are few enough to be told apart. */
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
        // Where a life begins, stops or goes on is a bar across its line.
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

  /** Which way is in use: to and from the node in focus, or how many peers which way. */
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
      // Changes within one pixel are drawn as the last of them.
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

  /** Where they are many, the everyday kinds are small ticks, and the turning points stay marks. */
  function drawEvents(g, lane, y) {
    const { life, r } = h();
    const list = lane.events;
    const first = lowest(list, at(-6));
    const end = at(size.width + 6);
    const crowded = (lowest(list, end) - first) * 16 > size.width;
    const last = new Map(); // where the last mark of a kind is: one on top of another adds nothing
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

  // ---------------------------------------------------------------------------------------------
  // What is under the pointer

  const pointer = { x: null, y: 0, over: null, drag: null };

  /** The overlay: the line of the pointer, a span that is dragged, and what belongs together. */
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

  /** The lane at a place of the plot, and what happened in it about there. */
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
    // The nearest ones are the ones that are meant; they are told in order of time.
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
      return line(signFor("lookup", thing), thing.at_s, `lookup of ${thing.peer}`, `${thing.group} after ${lasting(thing.took_s)}${thing.datagrams ? `, ${count(thing.datagrams, "datagram")}` : ""}`, !thing.found);
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

  /** A small picture of what is drawn for a thing: for the legend and for descriptions. */
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

  /** The head's descriptions: sentences, faults and claims about the pointer. */
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

  // Moving about

  function show(left, right) {
    aim(left, right);
    redraw();
    if (look.inView) later();
  }

  /** What is to be in view: a span of places on the axis. */
  function aim(left, right) {
    const least = Math.max(1e-5, length() * 1e-8);
    const span = Math.min(length(), Math.max(least, right - left));
    look.left = Math.max(0, Math.min(length() - span, left));
    look.right = look.left + span;
    look.from = timeOf(look.left);
    look.to = timeOf(look.right);
  }
  const zoom = (factor, px = size.width / 2) => {
    const fixed = look.left + px * perPixel();
    show(fixed - (fixed - look.left) * factor, fixed + (look.right - fixed) * factor);
  };
  const pan = (share) => {
    const by = share * (look.right - look.left);
    show(look.left + by, look.right + by);
  };
  const all = () => show(0, length());
  const whole = () => look.right - look.left >= length() * 0.999999;
  const centre = (when, span = look.right - look.left) => show(place(when) - span / 2, place(when) + span / 2);

  /** Idle times long or short: what is in view stays in view. */
  function skip(wanted) {
    const [from, to, everything] = [look.from, look.to, whole()];
    look.skips = wanted;
    if (everything) all();
    else show(place(from), place(to));
  }

  let waiting = 0;
  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(drawSpreads, 150);
  }

  /** Bring a moment into the middle of the view, with what is around it. */
  function visit(when) {
    centre(when, Math.min(look.right - look.left, Math.max(length() / 12, 1e-3)));
    $("picture").scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  // A page that is being scrolled does not zoom because the picture came under the pointer.
  let armed = false;
  function wheel(event) {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!armed) return;
    if (sideways || event.shiftKey) {
      event.preventDefault();
      pan((sideways ? event.deltaX : event.deltaY) / size.width);
      return;
    }
    if (event.deltaY > 0 && whole()) return; // nothing to zoom out of: let the page scroll
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 24 : event.deltaMode === 2 ? 400 : 1;
    const turn = Math.max(-180, Math.min(180, event.deltaY * lines));
    const box = event.currentTarget.getBoundingClientRect();
    zoom(Math.exp(turn / 320), event.clientX - box.left);
    letGo();
  }

  function press(event) {
    if (event.button !== 0 && event.button !== 1) return;
    const box = event.currentTarget.getBoundingClientRect();
    event.currentTarget.setPointerCapture(event.pointerId);
    const moves = event.shiftKey || event.button === 1;
    pointer.x = event.clientX - box.left;
    pointer.drag = { x: pointer.x, left: look.left, right: look.right, moves, zooms: false, far: false };
    if (event.currentTarget === $("head")) {
      const py = event.clientY - box.top;
      pointer.drag.overview = py <= OVERVIEW;
      const where = (pointer.x / size.width) * length();
      const inside = where >= look.left && where <= look.right && !whole();
      pointer.drag.carries = inside ? where : null;
      pointer.drag.began = where;
    }
  }

  function drag() {
    const { drag: d } = pointer;
    if (Math.abs(pointer.x - d.x) > 4) d.far = true;
    if (!d.far) return;
    letGo();
    hideTip();
    if (d.moves) {
      const by = ((d.x - pointer.x) / size.width) * (d.right - d.left);
      show(d.left + by, d.right + by);
    } else d.zooms = true;
  }

  function dragOverview(px) {
    const { drag: d } = pointer;
    pointer.x = px;
    if (Math.abs(px - d.x) > 4) d.far = true;
    if (!d.far) return;
    if (!d.overview) {
      d.zooms = !d.moves;
      if (d.moves) drag();
      else drawOver();
      return;
    }
    const where = (px / size.width) * length();
    if (d.carries !== null) show(d.left + where - d.carries, d.right + where - d.carries);
    else show(Math.min(where, d.began), Math.max(where, d.began));
  }

  function release(event) {
    const { drag: d } = pointer;
    if (!d) return;
    pointer.drag = null;
    const inHead = event.currentTarget === $("head");
    if (d.zooms) {
      const [from, to] = [d.x, pointer.x].sort((a, b) => a - b);
      show(look.left + from * perPixel(), look.left + to * perPixel());
    } else if (!d.far && inHead && d.overview) {
      const half = (look.right - look.left) / 2;
      show(d.began - half, d.began + half);
    } else if (!d.far && !inHead) {
      keep(event);
    }
    redraw();
  }

  /** A click keeps the description on the screen, so that it can be read, copied and compared. */
  function keep(event) {
    const had = look.kept;
    letGo();
    if (had) return;
    const under = beneath(pointer.x, pointer.y);
    if (!under?.things.length) return;
    look.kept = under;
    showTip(describe(under, 40), event.clientX, event.clientY);
    $("tip").classList.add("kept");
  }

  /** From one thing to the next, by keys: each is shown and said. */
  function step(direction) {
    const list = look.shown.flatMap((lane) => [
      ...lane.events.filter(eventShown).map((thing) => ({ lane, thing })),
      ...lane.queries.filter(queryShown).map((thing) => ({ lane, thing })),
    ]);
    list.sort((a, b) => a.thing.at_s - b.thing.at_s);
    if (!list.length) return;
    const now = look.stepped ? list.findIndex(({ thing }) => thing === look.stepped) : -1;
    let next = now + direction;
    if (now < 0) {
      next = list.findIndex(({ thing }) => thing.at_s >= look.from);
      if (next < 0) next = 0;
    }
    next = Math.max(0, Math.min(list.length - 1, next));
    const { lane, thing } = list[next];
    look.stepped = thing;
    if (thing.at_s < look.from || thing.at_s > look.to) centre(thing.at_s);
    const top = lane.row * h().lane;
    const lanes = $("lanes");
    if (top < lanes.scrollTop || top + h().lane > lanes.scrollTop + size.lanes) lanes.scrollTop = top - size.lanes / 2;
    draw();
    letGo();
    look.kept = { lane, at: thing.at_s, things: [{ thing }] };
    const box = $("over").getBoundingClientRect();
    $("said").textContent = [...describe(look.kept)].map((part) => part.textContent).join(". ");
    showTip(describe(look.kept), box.left + x(thing.at_s), box.top + top - lanes.scrollTop + h().life);
    $("tip").classList.add("kept");
    drawOver();
  }

  const KEYS = {
    ArrowLeft: () => pan(-0.15),
    ArrowRight: () => pan(0.15),
    ArrowUp: () => $("lanes").scrollBy(0, -h().lane),
    ArrowDown: () => $("lanes").scrollBy(0, h().lane),
    PageUp: () => $("lanes").scrollBy(0, -size.lanes),
    PageDown: () => $("lanes").scrollBy(0, size.lanes),
    "+": () => zoom(0.6),
    "=": () => zoom(0.6),
    "-": () => zoom(1 / 0.6),
    0: all,
    Home: all,
    n: () => step(1),
    p: () => step(-1),
  };

  // ---------------------------------------------------------------------------------------------
  // Distributions

  const SVG = $("svg").namespaceURI;
  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** The value that a share of all is at or below. */
  const quantile = (sorted, share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  const MARKED = [[0.5, "p50"], [0.95, "p95"], [0.99, "p99"]];
  const GROUPS_MAX = 9;

  function spread(box, things, { value = (thing) => thing.took_s, words = lasting, marks = onAxis, colour, least = 1e-6, what }) {
    const groups = gather(things, value, colour);
    if (!groups.length) {
      box.replaceChildren(make("p", { className: "soft" }, "None."));
      return;
    }
    const lowestOne = Math.max(least, Math.min(...groups.map(({ sorted }) => sorted.find((v) => v > 0) ?? least)));
    const highest = Math.max(lowestOne * 1.0001, ...groups.map(({ sorted }) => sorted[sorted.length - 1]));
    const low = Math.floor(Math.log10(lowestOne) + 1e-9);
    let high = Math.ceil(Math.log10(highest) - 1e-9);
    if (high <= low) high = low + 1;
    const axis = { low, high, place: (v) => (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low), words, marks };
    box.replaceChildren(histograms(groups, axis, what), curves(groups, axis, what));
  }

  function gather(things, value, colour) {
    const groups = new Map();
    for (const thing of things) {
      if (!groups.has(thing.group)) groups.set(thing.group, { name: thing.group, colour: colour(thing), values: [] });
      groups.get(thing.group).values.push(Math.max(0, value(thing)));
    }
    let list = [...groups.values()].sort((a, b) => b.values.length - a.values.length);
    if (list.length > GROUPS_MAX) {
      const rest = list.slice(GROUPS_MAX - 1);
      list = list.slice(0, GROUPS_MAX - 1);
      list.push({ name: `${rest.length} other kinds`, colour: "faint", values: rest.flatMap(({ values }) => values) });
    }
    const uses = {};
    for (const group of list) {
      // Two groups of one colour differ in the dashes of their lines.
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
      for (const [share] of MARKED) row.append(make("td", { className: "number" }, axis.words(quantile(sorted, share))));
      row.append(make("td", { className: "number" }, axis.words(sorted[sorted.length - 1])));
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
      picture.append(svg("text", { x: px, y: 11, "text-anchor": anchor }, axis.marks(value)));
    }
    return picture;
  }

  /** Ten cells a decade; its marks are p50, p95 and p99. */
  function histogram({ name, colour, sorted }, axis) {
    const high = 34;
    const cells = (axis.high - axis.low) * 10;
    const counts = new Uint32Array(cells);
    for (const value of sorted) counts[Math.min(cells - 1, Math.floor(axis.place(value) * cells + 1e-9))] += 1;
    const most = counts.reduce((a, b) => Math.max(a, b), 1);
    const told = MARKED.map(([share, label]) => `${label} ${axis.words(quantile(sorted, share))}`).join(", ");
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
      cell.append(svg("title", {}, `${axis.words(from)} to ${axis.words(from * 10 ** 0.1)}: ${number(n)}`));
      picture.append(cell);
    });
    picture.append(svg("line", { class: "axis", x1: 0, x2: WIDE, y1: high, y2: high }));
    for (const [share, label] of MARKED) {
      const px = axis.place(quantile(sorted, share)) * WIDE;
      const pin = svg("path", { d: `M${px} ${high - 1}l-3 4h6z`, fill: "var(--ink)" });
      pin.append(svg("title", {}, `${label}: ${axis.words(quantile(sorted, share))}`));
      picture.append(pin);
    }
    return picture;
  }

  /** Shares that were done by then. Each nine of the tail has as much room as the first nine
      tenths, so that the slow ones, which people remember, can be seen. */
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
      picture.append(svg("text", { x: px(value), y: high - 9, "text-anchor": anchor }, axis.marks(value)));
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

  /** Which of n sorted values a curve goes through: some hundred, closer to each other at the end. */
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
    const sent = lookups.reduce((sum, { datagrams }) => sum + datagrams, 0);
    $("lookups-of").textContent = `${count(lookups.length, "lookup")}${part && ` ${part}`}${sent ? ` · ${digits(sent / lookups.length)} datagrams each on average` : ""}`;
    const took = make("div", { className: "spread" });
    const cost = make("div", { className: "spread" });
    const colour = ({ found }) => (found ? "good" : "bad");
    spread(took, lookups, { colour, what: { group: "lookups", curve: "Share of lookups that were over by then" } });
    const parts = [took];
    if (sent) {
      spread(cost, lookups, {
        colour,
        value: ({ datagrams }) => datagrams,
        words: digits,
        marks: number,
        least: 1,
        what: { group: "datagrams", curve: "Share of lookups that sent at most so many datagrams" },
      });
      parts.push(cost);
    }
    $("lookups").replaceChildren(...parts);
  }

  // ---------------------------------------------------------------------------------------------
  // Tables

  function fill(table, columns, lines) {
    const head = make("tr");
    for (const [name, className = ""] of columns) head.append(make("th", { className, scope: "col" }, name));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
  }

  const whenButton = (when) => {
    const button = make("button", { type: "button", className: "link", title: "Show this moment in the picture" }, exactly(when));
    button.addEventListener("click", () => visit(when));
    return make("td", { className: "when number" }, button);
  };

  function drawClaimsTable() {
    const told = [
      ...(look.failedOnly ? [] : run.story.map((sentence) => ({ ...sentence, order: 0 }))),
      ...run.expectations.filter((claim) => !look.failedOnly || !claim.held).map((claim) => ({ ...claim, order: 1 })),
    ].sort((a, b) => a.at_s - b.at_s || a.order - b.order);
    const lines = told.map((row) => {
      if (row.order === 0) return make("tr", { className: "said" }, whenButton(row.at_s), make("td", { colSpan: 3, className: "text" }, row.text));
      return make(
        "tr",
        { className: row.held ? "" : "failed", data: { held: String(row.held) } },
        whenButton(row.at_s),
        make("td", { className: "verdict-of" }, make("span", { className: row.held ? "sign" : "sign bad" }, row.held ? "✓ held" : "✕ FAILED")),
        make("td", { className: "text" }, row.text),
        make("td", { className: "text soft" }, row.detail),
      );
    });
    if (!lines.length) lines.push(make("tr", {}, make("td", { colSpan: 4, className: "soft" }, "Nothing was told or expected.")));
    fill($("claims"), [["at", "number"], [""], ["expectation"], ["what was seen"]], lines);
    $("failed-only").hidden = run.failed === 0;
  }

  function drawFaultsTable() {
    $("faults-section").hidden = !run.faults.length;
    const lines = run.faults.map((fault) => make(
      "tr",
      {},
      whenButton(fault.from_s),
      make("td", { className: "number" }, fault.to_s === null ? "to the end" : lasting(fault.end - fault.from_s)),
      make("td", { className: "text" }, fault.text),
      make("td", { className: "text soft" }, named(fault.nodes)),
    ));
    fill($("faults"), [["from", "number"], ["for", "number"], ["what"], ["nodes"]], lines);
  }

  const named = (names) => (names.length === 0 ? "all" : names.length <= 12 ? names.join(", ") : `${names.slice(0, 10).join(", ")} and ${names.length - 10} more`);

  function drawSlowTable() {
    const mine = run.queries.filter(concerns);
    const slow = mine.filter((query) => query.outcome === "reply").sort((a, b) => b.took_s - a.took_s).slice(0, 8);
    const bad = mine.filter(failed).sort((a, b) => b.took_s - a.took_s).slice(0, 8);
    const lines = [...bad, ...slow].sort((a, b) => a.at_s - b.at_s).map((query) => make(
      "tr",
      { className: failed(query) ? "failed" : "" },
      whenButton(query.at_s),
      make("td", {}, `${query.node} → ${query.peer}`),
      make("td", { className: "text" }, query.group),
      make("td", { className: "number" }, lasting(query.took_s)),
    ));
    $("slow-section").hidden = !lines.length;
    fill($("slow"), [["at", "number"], ["from → to"], ["outcome, way"], ["took", "number"]], lines);
  }

  /** The picture in words and numbers, for whoever does not see it. */
  function drawNodesTable() {
    const lines = run.lanes.map((lane) => {
      const replies = lane.queries.filter((query) => query.outcome === "reply");
      const took = Float64Array.from(replies, ({ took_s }) => took_s).sort();
      const shares = wayShares(lane);
      const picture = make("span", { className: "share", ariaHidden: "true" });
      for (const way of ["direct", "relay", "none"]) {
        const part = make("i");
        part.style.width = `${shares[way] * 100}%`;
        part.style.background = `var(--${way})`;
        picture.append(part);
      }
      const any = shares.direct + shares.relay + shares.none > 0;
      const told = any ? ` ${digits(shares.direct * 100)} / ${digits(shares.relay * 100)} / ${digits(shares.none * 100)}` : "–";
      return make(
        "tr",
        {},
        make("td", {}, lane.name),
        make("td", { className: "soft" }, lane.role),
        make("td", {}, lane.states.length ? lane.states[lane.states.length - 1].state : "up"),
        make("td", { className: "mono" }, lane.addresses.length ? lane.addresses[lane.addresses.length - 1].address : "–"),
        make("td", { className: "number" }, number(Math.max(0, lane.addresses.length - 1))),
        make("td", { className: "number" }, number(lane.events.length)),
        make("td", { className: "number" }, number(lane.queries.length)),
        make("td", { className: "number" }, number(lane.queries.filter(failed).length)),
        make("td", { className: "number" }, took.length ? lasting(quantile(took, 0.5)) : "–"),
        make("td", {}, any ? picture : null, told),
      );
    });
    fill($("nodes"), [
      ["node"], ["role"], ["at the end"], ["last address"], ["moves", "number"], ["events", "number"],
      ["queries", "number"], ["failed", "number"], ["p50 of replies", "number"], ["time direct / relayed / no path, %"],
    ], lines);
  }

  function wayShares(lane) {
    const spent = known({ direct: 0, relay: 0, none: 0 });
    for (const changes of lane.ways.values()) {
      changes.forEach(({ at_s, way }, i) => {
        spent[way in spent ? way : "none"] += (changes[i + 1]?.at_s ?? run.ended) - at_s;
      });
    }
    const sum = spent.direct + spent.relay + spent.none || 1;
    return { direct: spent.direct / sum, relay: spent.relay / sum, none: spent.none / sum };
  }

  // ---------------------------------------------------------------------------------------------
  // The page

  const verdictOf = (expectations) => {
    const bad = expectations.filter((claim) => !claim.held).length;
    if (!expectations.length) return { bad: true, sign: "–", text: "nothing was expected" };
    if (bad) return { bad: true, sign: "✕", text: `${number(bad)} of ${count(expectations.length, "expectation")} failed` };
    return { bad: false, sign: "✓", text: expectations.length === 1 ? "the one expectation held" : `all ${number(expectations.length)} expectations held` };
  };

  function drawHeader() {
    const { data } = run;
    document.title = `${data.title} - EGTP simulation`;
    $("title").textContent = data.title;
    $("summary").textContent = data.summary;
    const verdict = verdictOf(run.expectations);
    $("verdict").textContent = `${verdict.sign} ${verdict.text}`;
    $("verdict").classList.toggle("bad", verdict.bad);

    const facts = [
      ["seed", data.seed],
      ["world", data.world],
      [data.world === "virtual" ? "virtual time" : "time", lasting(run.ended)],
      ["nodes", number(run.lanes.length)],
      ["events", number(run.events.length)],
      ["queries", number(run.queries.length)],
      ...Object.entries(data.options).filter(([name]) => name !== "seed" && name !== "nodes"),
    ];
    if (data.trace_digest !== null) facts.push(["trace digest", data.trace_digest]);
    $("facts").replaceChildren(...facts.map(([name, value]) => make(
      "div",
      {},
      make("dt", {}, name),
      make("dd", { className: name === "trace digest" ? "mono" : "" }, String(value ?? "none")),
    )));
    $("command-line").hidden = !data.command;
    $("command").textContent = data.command ?? "";

    const left = Object.entries(data.left_out);
    $("left-out").hidden = !left.length;
    const since = data.left_out_from_s === null ? "" : `, from ${exactly(data.left_out_from_s)} on (hatched)`;
    $("left-out").textContent = `Not everything was kept: left out are ${left.map(([kind, n]) => `${number(n)} ${kind}`).join(", ")}${since}.`;

    $("figures").replaceChildren(...Object.entries(data.figures).map(([name, amount]) => {
      const { what, value, unit } = figure(name, amount);
      return make("div", {}, make("dt", {}, what), make("dd", {}, value, unit ? make("small", {}, unit) : null));
    }));
    $("figures").hidden = !Object.keys(data.figures).length;
  }

  function drawLegend() {
    const group = (title, ...parts) => (parts.length ? make("div", {}, make("span", { className: "of" }, title), ...parts) : null);
    const key = (sign, text) => make("span", { className: "key" }, sign, text);
    const toggle = (id, sign, text) => {
      const button = make("button", { type: "button", ariaPressed: String(!look.hidden.has(id)) }, sign, text);
      button.addEventListener("click", () => {
        if (!look.hidden.delete(id)) look.hidden.add(id);
        button.ariaPressed = String(!look.hidden.has(id));
        letGo();
        redraw();
      });
      return button;
    };
    const samples = new Map();
    for (const query of run.queries) if (!samples.has(query.group)) samples.set(query.group, query);
    const threads = make("button", { type: "button", ariaPressed: String(look.threads) }, signFor("thread"), "from whom to whom");
    threads.addEventListener("click", () => {
      look.threads = !look.threads;
      threads.ariaPressed = String(look.threads);
      redraw();
    });
    const states = Object.keys(STATES).filter((state) => run.states.has(state) || state === "up");
    const otherStates = [...run.states].filter((state) => !STATES[state]);
    const parts = [
      group("node", ...[...states, ...otherStates].map((state) => key(signFor("state", state), state)), run.lanes.some((lane) => lane.addresses.length > 1) ? key(signFor("address"), "another address") : null),
      run.ways.size ? group("paths in use", ...Object.keys(WAYS).map((way) => key(signFor("way", way), wordsOfWay(way)))) : null,
      group("queries", ...run.groups.map((name) => toggle(`query ${name}`, signFor("query", samples.get(name)), name)), run.queries.length ? threads : null),
      group("lookups", ...(run.lookups.length ? [toggle("lookups", signFor("lookup", { found: true }), "in the DHT")] : [])),
      group("events", ...run.kinds.slice(0, 14).map((kind) => toggle(`event ${kind}`, signFor("event", { kind }), kind))),
      run.faults.length ? group("world", key(signFor("fault"), "fault")) : null,
    ];
    $("legend").replaceChildren(...parts.filter(Boolean));
  }

  function drawHeadNames() {
    const { head } = run;
    const label = (text, y) => {
      const span = make("span", {}, text);
      span.style.top = `${y}px`;
      return span;
    };
    const labels = [label("whole run", OVERVIEW / 2 + 1)];
    if (head.flags) labels.push(label("story", head.flagsTop + FLAG / 2));
    if (head.faults) labels.push(label("faults", head.faultsTop + FLAG / 2));
    if (head.claims) labels.push(label("expected", head.claimsTop + FLAG / 2));
    labels.push(label("time", head.rulerTop + 9));
    $("head-names").replaceChildren(...labels);
    $("head-box").style.height = `${head.high}px`;
  }

  /** How high the lanes may be for the picture to fit on the screen. */
  const room = () => Math.max(320, Math.round(innerHeight * 0.8) - run.head.high);

  /** The names beside the lanes, and how high everything is. */
  function layOut() {
    choose();
    const high = h().lane;
    const names = $("names");
    names.className = `gutter ${look.height}`;
    names.replaceChildren(...look.shown.map((lane) => {
      const button = make("button", { type: "button", ariaPressed: String(lane === look.focus), title: [lane.name, lane.role].filter(Boolean).join(", ") }, make("b", {}, lane.name), make("small", {}, lane.role));
      button.style.height = `${high}px`;
      button.tabIndex = -1;
      button.addEventListener("click", () => focus(lane === look.focus ? null : lane));
      return button;
    }));
    if (names.firstElementChild) names.firstElementChild.tabIndex = 0;
    const total = look.shown.length * high;
    size.lanes = Math.min(total, room());
    $("lanes").style.height = `${size.lanes}px`;
    $("plot-box").style.height = `${size.lanes}px`;
    // With a bar for scrolling beside the lanes, the head keeps the same distance.
    $("head").parentElement.style.marginRight = `${$("lanes").offsetWidth - $("lanes").clientWidth}px`;
    $("nobody").hidden = total > 0;
    for (const button of $("heights").children) button.ariaPressed = String(button.dataset.height === look.height);
    $("unfocus").hidden = !look.focus;
    $("unfocus").textContent = look.focus ? `Only ${look.focus.name}  ✕` : "";
    $("unfocus").setAttribute("aria-label", look.focus ? `Show all nodes again, not only ${look.focus.name}` : "");
    const what = `${count(look.shown.length, "lane")}, ${count(run.events.length, "event")} and ${count(run.queries.length, "query", "queries")} over ${lasting(run.ended)}`;
    $("over").setAttribute("aria-label", `Timeline of ${run.data.title}: ${what}. The tables below say the same in words.`);
  }

  function focus(lane) {
    look.focus = lane;
    look.stepped = null;
    letGo();
    $("lanes").scrollTop = 0;
    layOut();
    draw();
    drawSpreads();
    drawSlowTable();
    $("said").textContent = lane ? `Only ${lane.name}, with ${count(look.shown.length - 1, "other node")}` : "All nodes";
    if (lane) $("names").firstElementChild?.focus({ preventScroll: true });
  }

  const DATA = JSON.parse($("data").textContent);
  const opened = new Map(); // runs that have been looked at

  function open(index) {
    letGo();
    if (!opened.has(index)) opened.set(index, read(DATA[index]));
    run = opened.get(index);
    const lanes = run.lanes.length;
    Object.assign(look, { focus: null, find: "", wished: null, stepped: null, failedOnly: false });
    const bends = run.bends[run.bends.length - 1];
    // Where most of the run is idle, what happens would be a few pixels wide.
    look.skips = bends.place < 0.5 * bends.at;
    $("skip").ariaPressed = String(look.skips);
    $("skip").hidden = bends.place === bends.at;
    aim(0, length());
    look.hidden.clear();
    run.head = headRows();
    $("find").value = "";
    $("failed-only").ariaPressed = "false";
    [...$("tabs").children].forEach((tab, i) => {
      tab.ariaSelected = String(i === index);
      tab.tabIndex = i === index ? 0 : -1;
    });
    $("run").setAttribute("aria-label", run.data.title);
    $("nodes-details").open = lanes <= 24;
    $("run").hidden = false;
    drawHeader();
    drawHeadNames();
    drawLegend();
    layOut();
    drawClaimsTable();
    drawFaultsTable();
    drawSlowTable();
    drawNodesTable();
    drawSpreads();
    $("lanes").scrollTop = 0;
    draw();
    root.dataset.run = String(index);
  }

  function drawTabs() {
    const claims = DATA.map((data) => rows(data.expectations));
    $("tabs").replaceChildren(...DATA.map((data, i) => {
      const verdict = verdictOf(claims[i]);
      const tab = make("button", { type: "button", role: "tab", title: verdict.text }, make("span", { className: verdict.bad ? "sign bad" : "sign" }, verdict.sign), data.title);
      tab.setAttribute("aria-controls", "run");
      tab.addEventListener("click", () => open(i));
      return tab;
    }));
    $("tabs").addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      const tabs = [...$("tabs").children];
      const next = tabs[(tabs.indexOf(document.activeElement) + move + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
    $("overall").textContent = verdictOf(claims.flat()).text;
    $("runs-bar").hidden = DATA.length < 2;
    root.dataset.runs = String(DATA.length);
  }

  function pressed(button) {
    const now = button.ariaPressed !== "true";
    button.ariaPressed = String(now);
    return now;
  }

  function wire() {
    const over = $("over");
    over.addEventListener("pointermove", hover);
    over.addEventListener("pointerleave", () => {
      if (pointer.drag) return;
      pointer.over = null;
      hideTip();
      drawOver();
    });
    $("head").addEventListener("pointermove", hoverHead);
    $("head").addEventListener("pointerleave", hideTip);
    for (const canvas of [over, $("head")]) {
      canvas.addEventListener("pointerdown", press);
      canvas.addEventListener("pointerup", release);
      canvas.addEventListener("pointercancel", () => { pointer.drag = null; redraw(); });
      canvas.addEventListener("dblclick", () => { letGo(); all(); });
      canvas.addEventListener("wheel", wheel, { passive: false });
      canvas.addEventListener("pointermove", (e) => { armed ||= e.movementX !== 0 || e.movementY !== 0; });
      canvas.addEventListener("pointerleave", () => { armed = false; });
    }
    window.addEventListener("scroll", () => { armed = false; hideTip(); }, { passive: true });
    over.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    // Two hundred names are one stop of the tabulator key; the arrows go from one to another.
    $("names").addEventListener("keydown", (event) => {
      const names = [...$("names").children];
      const now = names.indexOf(document.activeElement);
      const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: names.length - 1 }[event.key];
      if (next === undefined || !names[next]) return;
      event.preventDefault();
      names[now].tabIndex = -1;
      names[next].tabIndex = 0;
      names[next].focus();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (look.kept) {
        letGo();
        drawOver();
      } else if (look.focus) focus(null);
    });
    $("lanes").addEventListener("scroll", redraw, { passive: true });
    $("zoom-in").addEventListener("click", () => zoom(0.5));
    $("zoom-out").addEventListener("click", () => zoom(2));
    $("zoom-all").addEventListener("click", all);
    $("skip").addEventListener("click", () => skip(pressed($("skip"))));
    $("unfocus").addEventListener("click", () => focus(null));
    $("find").addEventListener("input", () => {
      look.find = $("find").value;
      letGo();
      layOut();
      draw();
    });
    $("heights").addEventListener("click", (event) => {
      const { height } = event.target.dataset;
      if (!height) return;
      look.wished = height;
      letGo();
      layOut();
      draw();
    });
    $("in-view").addEventListener("click", () => { look.inView = pressed($("in-view")); drawSpreads(); });
    $("failed-only").addEventListener("click", () => { look.failedOnly = pressed($("failed-only")); drawClaimsTable(); });
    $("copy").addEventListener("click", copy);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new ResizeObserver(() => {
      if ($("plot-box").clientWidth === size.width) return;
      layOut();
      redraw();
    }).observe($("plot-box"));
    window.addEventListener("resize", () => { layOut(); redraw(); });
  }

  function recolour() {
    readColours();
    stamps = new Map();
    hatched = null;
    drawLegend();
    redraw();
  }

  /** Where the clipboard is out of reach, the command is selected instead. */
  async function copy() {
    try {
      await navigator.clipboard.writeText($("command").textContent);
      $("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command"));
      $("copy").textContent = "Selected";
    }
    setTimeout(() => { $("copy").textContent = "Copy"; }, 1600);
  }

  const began = performance.now();
  readColours();
  drawTabs();
  if (DATA.length) {
    wire();
    open(0);
  } else complain("The page holds no run.");
  root.dataset.drawnMs = (performance.now() - began).toFixed(0);
  root.dataset.ready = "true";
})();
