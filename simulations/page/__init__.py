"""The page of a run: one HTML file that needs no network, drawn by its own script.

Recorded data is never markup: the file holds it as JSON without any ``<``, and the script displays
it as text. As a second line of defence, the content security policy in the file's head allows only
this script, and no requests at all.
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
"""Joined into one script in this order: at load time each part uses only those before it, and
afterwards any. Recorded data reaches the screen as text, never as markup."""


def page(runs: Sequence[Mapping[str, object]]) -> str:
    """The page that shows ``runs``, each a ``Timeline.as_dict()``, one at a time."""
    files = resources.files(__name__)
    template, style, *scripts = (
        files.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *(f"script/{part}.js" for part in SCRIPTS))
    )
    script = "\n".join(['"use strict";', "(() => {", *scripts, "})();", ""])
    # An HTML parser ends a script at "</script", but not after "<!--" followed by "<script".
    data = json.dumps(runs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(template).substitute(
        style=style,
        script=script,
        runs=data,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """The hash by which a content security policy allows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
