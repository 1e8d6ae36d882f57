// Turning the recorded data of a run into lanes.

/** The rows of a recorded table as objects, sorted by time. */
function rows(table, by = "at_s") {
  const { columns, rows: lines } = table;
  const all = lines.map((line) => {
    const row = {};
    for (let i = 0; i < columns.length; i++) row[columns[i]] = line[i];
    return row;
  });
  // The sort is stable: entries of the same time stay in the order of recording.
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
    mix: [], // how many peers are reached by each way, after each change
    related: new Set(), // names of all nodes that it had to do with
    close: new Set(), // those among them with a path, query or lookup between the two
    longest: 0, // the longest query or lookup, in seconds
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

/** The bends of the time axis when idle times are shortened: pairs of time and place, where places
    are like seconds except during idle times. */
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

/** After each change, how many peers a lane reaches directly, through relays, and not at all. */
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

/** The index of the first item in `list` whose `key` is at least `at`. */
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

/** The item in force at a time: the last in `list` that is not after `at`. */
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
