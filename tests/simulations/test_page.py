"""The page of a run: whole in one file, proof against hostile names, drawn by a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.page import page
from simulations.timeline import Timeline, TimelineLimits

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed to open the page in"
)

HOSTILE = """</script><script>document.documentElement.dataset.hacked="yes"</script>"""
IMAGE = """<!--<script><img src=x onerror='document.documentElement.dataset.hacked="yes"'>"""


# Runs to look at


def sample_run(
    *,
    nodes: int = 16,
    queries: int = 400,
    events: int = 300,
    seed: int = 1,
    title: str = "relay-crash",
    fails: int = 0,
    limits: TimelineLimits | None = None,
) -> Timeline:
    """What a run of a network might leave: a relay crashes, somebody moves, somebody sleeps."""
    r = random.Random(seed)
    length_s = 60.0
    run = Timeline(
        title,
        summary="a relay goes down while people talk through it, and somebody moves",
        seed=seed,
        command=f"python simulations/run_cluster.py --scenario={title} --seed={seed}",
        options={"nodes": nodes, "loss": 0.01, "latency": "20-80 ms"},
        limits=limits,
    )
    relays = [f"relay-{n}" for n in range(1, max(2, nodes // 6) + 1)]
    hidden = [f"hidden-{n}" for n in range(1, max(2, nodes // 6) + 1)]
    first = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"]
    count = nodes - len(relays) - len(hidden) - 1
    peers = [*first, *(f"peer-{n}" for n in range(9, count + 1))][:count]
    roles = {"bootstrap-1": "bootstrap"}
    roles |= dict.fromkeys(relays, "relay")
    roles |= dict.fromkeys(peers, "peer")
    roles |= dict.fromkeys(hidden, "hidden")
    for number, (name, role) in enumerate(roles.items()):
        run.node(name, role)
        run.state(name, r.uniform(0, 0.4), "up")
        run.address(name, 0.0, f"10.0.{number // 250}.{number % 250 + 1}:4000")

    crash_s, back_s, move_s, sleep_s, wake_s = 21.0, 34.0, 12.0, 40.0, 47.5
    talkers = [*peers, *hidden]
    bob, sleeper = peers[1], peers[2]
    run.state(relays[0], crash_s, "down")
    run.state(relays[0], back_s, "up")
    run.state(sleeper, sleep_s, "asleep")
    run.state(sleeper, wake_s, "up")
    run.state(hidden[0], 55.0, "gone")
    run.address(bob, move_s, "10.9.0.7:4000")
    run.address(bob, 30.2, "10.9.3.1:4000")
    crash = run.fault(crash_s, f"{relays[0]} has no power", [relays[0]])
    run.fault_over(crash, back_s)
    lossy = run.fault(25.0, "a third of all packets is lost", talkers[: len(talkers) // 3])
    run.fault_over(lossy, 31.0)

    pairs = [(a, b) for a in talkers for b in r.sample(talkers, min(3, len(talkers))) if a != b]
    ways: dict[tuple[str, str], str] = {}
    for a, b in pairs:
        way = "relay" if b in hidden or r.random() < 0.2 else "direct"
        at_s = r.uniform(0.5, 8)
        ways[a, b] = way
        run.event(at_s, a, "path opened", b, f"by {relays[0]}" if way == "relay" else "direct")
        run.path(at_s, a, b, way)
        if b == bob:
            run.event(move_s + 0.1, a, "path lost", b, "reset by peer")
            run.path(move_s + 0.1, a, b, "none")
            run.event(move_s + 0.4, a, "path opened", b, "direct")
            run.path(move_s + 0.4, a, b, "direct")
        if way == "relay" and r.random() < 0.6:
            lost_s, found_s = crash_s + r.uniform(0, 2), crash_s + r.uniform(2, 5)
            run.event(lost_s, a, "path lost", b, f"{relays[0]} is silent")
            run.path(lost_s, a, b, "none")
            run.event(found_s, a, "path opened", b, f"by {relays[1]}")
            run.path(found_s, a, b, "relay")
    for _ in range(events):
        node = r.choice(list(roles))
        kind = r.choices(
            ["dial", "record learned", "record published", "search failed", "clock"],
            [10, 6, 3, 0.3, 0.3],
        )[0]
        peer = r.choice(talkers) if kind in {"record learned", "search failed"} else None
        texts = {"dial": "10.0.0.7:4000", "record learned": "lookup", "clock": "set by 4 s"}
        run.event(r.uniform(0.5, length_s), node, kind, peer, texts.get(kind, ""))
    for _ in range(queries):
        a, b = r.choice(pairs)
        at_s = r.uniform(2, length_s - 4)
        way = ways[a, b]
        took_s = r.lognormvariate(math.log(0.045 if way == "direct" else 0.13), 0.45)
        outcome = "reply"
        if crash_s < at_s < crash_s + 3 and way == "relay":
            outcome = r.choice(["reply", "fast fail", "hard timeout"])
            took_s = {"reply": took_s + 1.2, "fast fail": 0.004, "hard timeout": 10.0}[outcome]
        elif r.random() < 0.01:
            outcome = "handler failed"
        run.query(at_s, took_s, a, b, "none" if outcome == "fast fail" else way, outcome)
    for _ in range(max(20, nodes)):
        found = r.random() < 0.9
        took_s = r.lognormvariate(math.log(0.3), 0.6)
        node, peer = r.choice(pairs)
        at_s = r.uniform(1, length_s - 5)
        run.lookup(at_s, took_s, node, peer, found=found)

    for number, (at_s, text) in enumerate(
        [
            (0.6, "everything is up after 0.60 s"),
            (6.0, "everybody talks to three others"),
            (move_s, "bob moves to another network, and all his connections are cut"),
            (crash_s, f"{relays[0]} crashes without a word"),
            (back_s, f"{relays[0]} comes back with the same key"),
            (sleep_s, "carol closes her laptop"),
            (wake_s, "and opens it again"),
            (55.0, "hidden-1 takes leave"),
        ]
    ):
        run.sentence(at_s, text)
        run.expectation(at_s + 0.9, f"everybody is reached again ({number})", True, "12 of 12")
        run.expectation(at_s + 2.2, "and nobody waits longer than a second", number >= fails, "1 s")
    run.expectation(59.0, "nothing is left when the cluster is closed", True, "0 tasks")
    run.figure("crash_to_next_reply_ms", 1184.0321)
    run.figure("move_to_next_reply_ms", 87.2)
    run.figure("relayed_bytes", 1_250_112.0)
    run.figure("lost_queries", 3)
    run.figure("longest_silence_s", 2.31)
    run.figure("never_seen_ms", math.inf)
    run.end(length_s, "8d3f0c6e5b7a41c09f8e77d2")
    return run


def hostile_run() -> Timeline:
    """Everybody in it would like to be a part of the page."""
    run = Timeline(HOSTILE, summary=IMAGE, command=HOSTILE, options={IMAGE: HOSTILE})
    for name in (HOSTILE, IMAGE, "'\"><b>bold</b>", "__proto__", "constructor"):
        run.node(name, IMAGE)
        run.state(name, 0.0, HOSTILE)
        run.address(name, 0.0, IMAGE)
        run.address(name, 0.5, HOSTILE)
        run.event(0.1, name, HOSTILE, IMAGE, HOSTILE)
        run.event(0.2, name, "__proto__", "constructor", IMAGE)
        run.path(0.1, name, IMAGE, HOSTILE)
        run.query(0.2, 0.1, name, HOSTILE, IMAGE, HOSTILE)
        run.query(0.2, 0.1, name, "toString", "constructor", "__proto__")
        run.lookup(0.1, 0.2, name, IMAGE, found=False)
        run.fault(0.3, HOSTILE, [name, IMAGE])
    run.sentence(0.4, HOSTILE)
    run.expectation(0.5, IMAGE, False, HOSTILE)
    run.figure(HOSTILE, 1.5)
    run.end(1.0, IMAGE)
    return run


def table(run: Timeline, kind: str) -> list[dict[str, Any]]:
    """The rows of a recorded table, by the names of its columns."""
    shown = run.as_dict()[kind]
    assert isinstance(shown, dict)
    return [dict(zip(shown["columns"], row, strict=True)) for row in shown["rows"]]


# Without a browser


def recorded(text: str) -> object:
    """The data in a page, as its script reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_what_was_recorded_is_in_the_page_and_comes_back_the_same() -> None:
    runs = [sample_run().as_dict(), sample_run(seed=2, title="ip-change").as_dict()]
    assert recorded(page(runs)) == runs


def test_the_same_run_makes_the_same_page() -> None:
    assert page([sample_run().as_dict()]) == page([sample_run().as_dict()])


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page([sample_run().as_dict()])
    assert not re.search(r"https?:|\bsrc\s*=|\bhref\s*=|@import|url\(|\bfetch\(|\bimport\(", text)
    assert "default-src 'none'" in text


def test_only_the_script_and_style_of_the_page_may_be_used() -> None:
    text = page([])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    for element in ("script", "style"):
        inline = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        assert inline
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]


def test_no_recorded_text_can_end_the_data_it_is_in() -> None:
    plain, hostile = page([]), page([hostile_run().as_dict()])
    for sign in ("<", "</script", "<script", "<!--", "<img"):
        assert hostile.count(sign) == plain.count(sign)
    assert recorded(hostile) == [hostile_run().as_dict()]


@given(text=st.text(), at_s=st.floats(0, 1e9))
def test_any_text_comes_back_the_same(text: str, at_s: float) -> None:
    run = Timeline(text, summary=text)
    run.event(at_s, text, text, text, text)
    assert recorded(page([run.as_dict()])) == [run.as_dict()]


def test_a_number_that_no_browser_can_read_is_refused() -> None:
    run = Timeline("broken")
    run.sentence(math.nan, "when?")
    with pytest.raises(ValueError, match="Out of range"):
        page([run.as_dict()])


# In a browser


class Shown(HTMLParser):
    """What a browser made of a page: the text of each element with an id, and the root's data."""

    VOID = frozenset(("meta", "input", "br", "link", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.data: dict[str, str | None] = {}
        self.texts: dict[str, list[str]] = {}
        self.tags: Counter[str] = Counter()
        self.hidden: set[str] = set()
        self._open: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        known = dict(attrs)
        if tag == "html":
            self.data = {name.removeprefix("data-"): value for name, value in attrs}
        if tag not in self.VOID:
            self._open.append(known.get("id"))
        if known.get("id") and "hidden" in known:
            self.hidden.add(str(known["id"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in filter(None, self._open):
            self.texts.setdefault(name, []).append(data)

    def text(self, name: str) -> str:
        return "".join(self.texts.get(name, []))


def opened(folder: Path, text: str, visitor: str = "", *, width: int = 1400) -> Shown:
    """What is on the screen when a browser has opened the page, and ``visitor`` has used it.

    A visitor is the body of a function in the browser; what it returns is ``data["told"]``.
    """
    if visitor:
        # The page lets no other script run than its own; for a visitor this is switched off.
        text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text)
        script = VISIT.replace("VISITOR", visitor)
        text = text.replace("</body>", f"<script>{script}</script></body>")
    file = folder / "run.html"
    file.write_text(text, encoding="utf-8")
    command = [
        str(BROWSER),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--dump-dom"),
        f"--window-size={width},1000",
        f"--user-data-dir={folder / 'profile'}",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)  # noqa: S603
    shown = Shown(done.stdout)
    assert shown.data.get("errors") is None
    assert shown.data.get("ready") == "true"
    return shown


VISIT = """
const $ = (id) => document.getElementById(id);
const names = () => [...$("names").children].map((name) => name.querySelector("b").textContent);
const now = () => ({ ...document.documentElement.dataset });
// The page draws in the next frame; here it has none to wait for.
window.requestAnimationFrame = (draw) => { draw(); return 0; };
function at(kind, target, x, y, more = {}) {
  const box = target.getBoundingClientRect();
  const place = { clientX: box.left + x, clientY: box.top + y, movementX: 1, pointerId: 1 };
  const Kind = kind === "wheel" ? WheelEvent : PointerEvent;
  target.dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, ...place, ...more }));
}
const press = (key) =>
  $("over").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
HTMLElement.prototype.setPointerCapture = () => {};
document.documentElement.dataset.told = JSON.stringify((() => { VISITOR })());
"""


def told(shown: Shown) -> Any:
    answer = shown.data.get("told")
    assert answer is not None
    return json.loads(answer)


@needs_browser
def test_a_browser_draws_a_run_without_an_error(tmp_path: Path) -> None:
    run = sample_run(fails=1)
    shown = opened(tmp_path, page([run.as_dict()]))
    assert shown.text("title") == "relay-crash"
    assert shown.text("verdict") == "✕ 1 of 17 expectations failed"
    assert "8d3f0c6e5b7a41c09f8e77d2" in shown.text("facts")
    assert shown.text("command") == run.as_dict()["command"]
    assert shown.data["lanes"] == "16"
    assert "bootstrap-1" in shown.text("names")
    assert "hidden-2" in shown.text("names")
    # Figures and their units in words; a time that never came is no number.
    assert "crash to next reply1,184ms" in shown.text("figures")
    assert "longest silence2.31s" in shown.text("figures")
    assert "never seen\N{EN DASH}ms" in shown.text("figures")
    # The picture in words: the story, what was expected of it, faults, queries and nodes.
    assert "relay-1 crashes without a word" in shown.text("claims")
    assert shown.text("claims").count("✓ held") == 16
    assert shown.text("claims").count("✕ FAILED") == 1
    assert "relay-1 has no power" in shown.text("faults")
    assert "13.0 s" in shown.text("faults")
    assert "reply, direct" in shown.text("queries")
    assert "not found" in shown.text("lookups")
    assert "10.9.3.1:4000" in shown.text("nodes")
    assert {"runs-bar", "left-out", "trouble", "tip"} <= shown.hidden


@needs_browser
def test_names_that_are_markup_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    shown = opened(tmp_path, page([hostile_run().as_dict(), hostile_run().as_dict()]))
    assert "hacked" not in shown.data
    assert (shown.tags["img"], shown.tags["script"]) == (0, 2)
    assert shown.text("title") == HOSTILE
    assert shown.text("summary") == IMAGE
    assert HOSTILE in shown.text("names")
    assert "__proto__" in shown.text("names")
    assert HOSTILE in shown.text("claims")
    assert "bold" in shown.text("names")


@needs_browser
def test_several_runs_are_told_apart_by_tabs(tmp_path: Path) -> None:
    runs = [sample_run(fails=2), sample_run(nodes=20, seed=2, title="ip-change")]
    visitor = """
        const seen = [[$("title").textContent, now().lanes]];
        const tabs = [...$("tabs").children];
        tabs[1].click();
        seen.push([$("title").textContent, now().lanes]);
        tabs[1].focus();
        tabs[1].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
        seen.push([$("title").textContent, now().lanes]);
        return seen;
    """
    shown = opened(tmp_path, page([run.as_dict() for run in runs]), visitor)
    assert told(shown) == [["relay-crash", "16"], ["ip-change", "20"], ["relay-crash", "16"]]
    assert shown.text("tabs") == "✕relay-crash✓ip-change"
    assert shown.text("overall") == "2 of 34 expectations failed"


@needs_browser
def test_a_visitor_looks_closer_and_comes_back(tmp_path: Path) -> None:
    visitor = """
        const span = () => [Number(now().from), Number(now().to)];
        const seen = { all: span() };
        const wide = $("over").clientWidth;
        const [first, last] = [Number(now().first), Number(now().last)];
        const px = (moment) => first + ((last - first) * moment) / 60;
        at("pointerdown", $("over"), px(15), 50, { button: 0 });
        at("pointermove", $("over"), px(24), 50);
        at("pointermove", $("over"), px(30), 50);
        at("pointerup", $("over"), px(30), 50);
        seen.dragged = span();
        at("wheel", $("over"), wide / 2, 50, { deltaY: -200 });
        seen.wheeled = span();
        press("ArrowRight");
        seen.moved = span();
        at("dblclick", $("over"), 10, 50);
        seen.back = span();
        $("zoom-in").click();
        seen.button = span();
        press("0");
        seen.key = span();
        return seen;
    """
    seen = told(opened(tmp_path, page([sample_run().as_dict()]), visitor))
    assert seen["all"] == seen["back"] == seen["key"] == [0, 60]
    assert seen["dragged"] == pytest.approx([15, 30], abs=0.1)
    left, right = seen["wheeled"]
    assert 15 < left < 22.5 < right < 30
    assert seen["moved"][0] > left
    assert seen["button"] == pytest.approx([15, 45], abs=0.1)


@needs_browser
def test_marks_of_the_first_and_last_moment_are_whole(tmp_path: Path) -> None:
    visitor = "return [Number(now().first), $('over').clientWidth - Number(now().last)];"
    left, right = told(opened(tmp_path, page([sample_run().as_dict()]), visitor))
    assert left == right > 6, "the largest mark is six pixels to each side"


@needs_browser
def test_a_press_on_a_name_shows_what_that_node_had_to_do_with(tmp_path: Path) -> None:
    visitor = """
        const seen = { all: names() };
        const every = $("queries-of").textContent;
        [...$("names").children].find((name) => name.textContent.startsWith("alice")).click();
        seen.alice = names();
        seen.of = $("queries-of").textContent;
        seen.chip = $("unfocus").hidden ? null : $("unfocus").textContent;
        document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
        seen.back = names();
        $("find").value = "relay";
        $("find").dispatchEvent(new Event("input"));
        seen.found = names();
        return seen;
    """
    run = sample_run(nodes=40)
    rows = table(run, "queries")
    close = {row["peer"] for row in rows if row["node"] == "alice"}
    close |= {row["node"] for row in rows if row["peer"] == "alice"}
    seen = told(opened(tmp_path, page([run.as_dict()]), visitor))
    assert seen["all"] == seen["back"]
    assert len(seen["all"]) == 40
    assert seen["alice"][0] == "alice"
    assert close <= set(seen["alice"])
    assert len(seen["alice"]) < 40
    asked = sum("alice" in (row["node"], row["peer"]) for row in rows)
    assert seen["of"].startswith(f"{asked} queries from or to alice")
    assert "Only alice" in seen["chip"]
    assert seen["found"] == [f"relay-{n}" for n in range(1, 7)]


@needs_browser
def test_what_is_under_the_pointer_is_told_and_a_click_keeps_it(tmp_path: Path) -> None:
    run = Timeline("one thing")
    run.node("alice", "peer")
    run.node("bob", "relay")
    run.address("alice", 0.0, "10.0.0.1:4000")
    run.event(5.0, "alice", "path lost", "bob", "reset by peer")
    run.query(5.0, 0.02, "alice", "bob", "direct", "reply")
    for tenth in range(0, 100, 4):
        run.event(tenth / 10, "bob", "dial")
    run.end(10.0)
    visitor = """
        const middle = $("over").clientWidth / 2;
        at("pointermove", $("over"), middle, 10);
        const seen = { hovered: $("tip").textContent };
        at("pointermove", $("over"), 40, 10);
        seen.elsewhere = $("tip").textContent;
        at("pointermove", $("over"), middle, 10);
        at("pointerdown", $("over"), middle, 10, { button: 0 });
        at("pointerup", $("over"), middle, 10);
        at("pointermove", $("over"), 40, 10);
        seen.kept = $("tip").textContent;
        document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
        seen.said = ["n", "n", "p"].map((key) => {
          press(key);
          return $("said").textContent;
        });
        return seen;
    """
    seen = told(opened(tmp_path, page([run.as_dict()]), visitor))
    assert "alice5.000 s" in seen["hovered"]
    assert "peer · up · 10.0.0.1:4000" in seen["hovered"]
    assert "path lost: bob \N{EN DASH} reset by peer" in seen["hovered"]
    assert "query to bob \N{EN DASH} reply after 20.0 ms, direct" in seen["hovered"]
    assert "path lost" not in seen["elsewhere"]
    assert "path lost: bob" in seen["kept"]
    first, second, third = seen["said"]
    assert first == third == "bob0.000 s. relay · up. 0.000 sdial"
    assert "0.400 s" in second


@needs_browser
def test_idle_times_are_skipped_if_they_are_most_of_a_run(tmp_path: Path) -> None:
    run = Timeline("sleep")
    run.node("alice", "peer")
    for at_s in (0.0, 1.0, 2.0, 3600.0, 3601.0, 3602.0):
        run.event(at_s, "alice", "dial")
    run.end(3602.0)
    visitor = """
        const wide = $("over").clientWidth;
        const found = () => {
          const marks = [];
          for (let px = 0; px <= wide; px += 2) {
            at("pointermove", $("over"), px, 10);
            if ($("tip").textContent.includes("dial")) marks.push(px / wide);
          }
          const early = marks.filter((mark) => mark < 0.5);
          return [Math.max(...early), Math.min(...marks.slice(early.length))];
        };
        const seen = { skipping: $("skip").ariaPressed, short: found() };
        $("skip").click();
        seen.long = found();
        return seen;
    """
    seen = told(opened(tmp_path, page([run.as_dict()]), visitor))
    assert seen["skipping"] == "true"
    # The first three seconds are a good part of the picture, and then they are a hair's breadth.
    assert seen["short"][0] > 0.25
    assert seen["short"][1] < 0.75
    assert seen["long"][0] < 0.02
    assert seen["long"][1] > 0.98


@needs_browser
def test_two_hundred_lanes_are_drawn_as_far_as_they_are_in_view(tmp_path: Path) -> None:
    run = sample_run(nodes=200, queries=30_000, events=50_000)
    visitor = """
        const seen = { top: Number(now().marks) };
        for (let i = 0; i < 6; i++) $("zoom-in").click();
        seen.near = Number(now().marks);
        return seen;
    """
    shown = opened(tmp_path, page([run.as_dict()]), visitor)
    assert shown.data["lanes"] == "200"
    assert told(shown)["top"] < 40_000
    assert told(shown)["near"] < 4_000


@needs_browser
def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    run = sample_run(limits=TimelineLimits(events_max=50, queries_max=100))
    shown = opened(tmp_path, page([run.as_dict()]))
    assert "left-out" not in shown.hidden
    assert re.search(r"left out are 303 events, 300 queries, from .* on", shown.text("left-out"))


@needs_browser
@pytest.mark.parametrize("width", [500, 1400])
def test_a_run_in_which_nothing_was_recorded_is_a_page_as_well(tmp_path: Path, width: int) -> None:
    shown = opened(tmp_path, page([Timeline("nothing").as_dict()]), width=width)
    assert shown.text("verdict") == "\N{EN DASH} nothing was expected"
    assert shown.data["lanes"] == "0"
    assert {"queries-section", "lookups-section", "faults-section"} <= shown.hidden
