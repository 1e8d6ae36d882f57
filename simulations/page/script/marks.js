// Marks and colours.

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

/** The group of a query: its outcome, and its way if it had one. */
function groupOf({ way, outcome }) {
  const by = way === "" || way === "none" ? "" : `, ${wordsOfWay(way)}`;
  return `${outcome}${by}`;
}
const failed = (query) => query.outcome !== "reply" && query.outcome !== "open";
function colourOf({ way, outcome }) {
  return outcome === "reply" ? (WAYS[way] ?? "soft") : (OUTCOMES[outcome] ?? "yellow");
}

/** A mark with a thin rim of the background colour, to stand out from what is below it. */
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

/** Draw a mark by copying a cached image, which is what makes thousands of them fast. */
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

/** A span of a way in use: full, half or hairline height, to be readable without colour. */
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
/** The waiting time of a failed query, drawn faintly: what counts is its end. */
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
