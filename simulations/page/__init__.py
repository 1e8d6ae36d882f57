"""The page of a run: one HTML file that needs no network, drawn by the script inside of it.

What was recorded is data in that file and never markup: it is JSON in which no ``<`` is left, and
the script puts it on the screen as text. The policy in the file's head lets this script run and no
other, and forbids every request, so that even a mistake here would have nothing to work with.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Final

__all__ = ["page"]

SCRIPTS: Final = (
    "beginning", "words", "reading", "marks", "view", "head", "lanes", "pointer", "moving",
    "spreads", "tables", "whole",
)  # fmt: skip
"""One script in the end, in this order: each uses what is before it as it is read, and anything
once all of it is there. Whatever was recorded reaches the screen as text, never as markup."""


def page(runs: Sequence[Mapping[str, object]]) -> str:
    """The page that shows ``runs``, each a ``Timeline.as_dict()``, one at a time."""
    files = resources.files(__name__)
    template, style, *scripts = (
        files.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *(f"script/{part}.js" for part in SCRIPTS))
    )
    script = "\n".join(['"use strict";', "(() => {", *scripts, "})();", ""])
    # A reader of HTML ends a script at "</script", and sees no such end after "<!--" "<script".
    data = json.dumps(runs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(template).substitute(
        style=style,
        script=script,
        runs=data,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """As a content security policy names an inline text that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
