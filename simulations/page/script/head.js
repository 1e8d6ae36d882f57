// The head of the picture: overview, story, faults, claims and ruler.

/** As much of `text` as fits into `room` pixels. */
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

/** The whole run in a strip: how much happened, what failed, and the span in view. */
function drawOverview(g) {
  const { width } = size;
  const top = 5;
  const high = OVERVIEW - top - 3;
  for (const fault of run.faults) {
    g.fillStyle = colours.shade;
    g.fillRect(across(fault.from_s), top, Math.max(1, across(fault.end) - across(fault.from_s)), high);
  }
  const cell = 3;
  const cells = Math.max(1, Math.ceil(breadth() / cell));
  if (run.density?.cells !== cells || run.density.skips !== look.skips) run.density = density(cells);
  const { all, bad, most } = run.density;
  const scaled = (n) => (n ? Math.max(2, Math.cbrt(n / most) * (high - 2)) : 0);
  for (let i = 0; i < cells; i++) {
    if (!all[i]) continue;
    const whole = scaled(all[i]);
    g.fillStyle = colours.faint;
    g.globalAlpha = 0.6;
    g.fillRect(EDGE + i * cell, top + high - whole, cell - 1, whole);
    g.globalAlpha = 1;
    if (bad[i]) {
      g.fillStyle = colours.bad;
      const part = Math.max(3, (bad[i] / all[i]) * whole);
      g.fillRect(EDGE + i * cell, top + high - part, cell - 1, part);
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

const WORDS_MIN = 110; // pixels; less of a sentence would be meaningless

/** Like labels on a map: a sentence is written where a good part of it fits; otherwise it is a
    pole, with the text on hover. The last sentence left of the view is shown too: it is where the
    story stands. */
function drawFlags(g, head) {
  if (!head.flags) return 0;
  g.textBaseline = "middle";
  g.textAlign = "left";
  g.font = `12px ${colours.sans}`;
  const labels = []; // the last one in each row
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

/** A free row, or the one whose label began the longest ago, if it can be cut short; else -1. */
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
    // The text goes into the bar if it fits, otherwise beside it, up to the next bar.
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

/** Claims close to each other share one sign, with their number. */
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
      // At the right edge, the text goes to the left of its sign if there is room.
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
