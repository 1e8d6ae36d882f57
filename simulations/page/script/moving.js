// Navigation: wheel, drag, keys.

function show(left, right) {
  aim(left, right);
  redraw();
  if (look.inView) later();
}

/** Set the view to a span of places on the axis, within limits. */
function aim(left, right) {
  const least = Math.max(1e-5, length() * 1e-8);
  const span = Math.min(length(), Math.max(least, right - left));
  look.left = Math.max(0, Math.min(length() - span, left));
  look.right = look.left + span;
  look.from = timeOf(look.left);
  look.to = timeOf(look.right);
}
const zoom = (factor, px = size.width / 2) => {
  const fixed = placeAt(px);
  show(fixed - (fixed - look.left) * factor, fixed + (look.right - fixed) * factor);
};
const pan = (share) => {
  const by = share * (look.right - look.left);
  show(look.left + by, look.right + by);
};
const all = () => show(0, length());
const whole = () => look.right - look.left >= length() * 0.999999;
const centre = (when, span = look.right - look.left) => show(place(when) - span / 2, place(when) + span / 2);

/** Shorten idle times or not, keeping the same span in view. */
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

/** Centre the view on a moment, zoomed in far enough to see it. */
function visit(when) {
  centre(when, Math.min(look.right - look.left, Math.max(length() / 12, 1e-3)));
  $("picture").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// Do not zoom when the picture merely comes under the pointer as the page scrolls.
let armed = false;
function wheel(event) {
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (!armed) return;
  if (sideways || event.shiftKey) {
    event.preventDefault();
    pan((sideways ? event.deltaX : event.deltaY) / breadth());
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
    const where = placeAcross(pointer.x);
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
    const by = ((d.x - pointer.x) / breadth()) * (d.right - d.left);
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
  const where = placeAcross(px);
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
    show(placeAt(from), placeAt(to));
  } else if (!d.far && inHead && d.overview) {
    const half = (look.right - look.left) / 2;
    show(d.began - half, d.began + half);
  } else if (!d.far && !inHead) {
    keep(event);
  }
  redraw();
}

/** A click pins the description, so that it can be read, copied and compared; a second unpins. */
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

/** Step by key to the next or previous event or query; show it, and announce it to screen readers. */
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
