// Tables.

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

/** The picture in words and numbers, for people who cannot see it. */
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
