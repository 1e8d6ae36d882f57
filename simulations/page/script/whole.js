// The page as a whole.

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

/** The height available to the lanes if the picture is to fit on the screen. */
const room = () => Math.max(320, Math.round(innerHeight * 0.8) - run.head.high);

/** Lay out the names beside the lanes, and set all heights. */
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
  // Align the head with the lanes when those have a scroll bar.
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
  // If most of the run is idle, everything else would be only a few pixels wide.
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
  // All names together are a single Tab stop; the arrow keys move between them.
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

/** Copy the command; without access to the clipboard, select it instead. */
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
