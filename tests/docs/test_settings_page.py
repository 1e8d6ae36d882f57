"""The page of settings is written from the classes: every field, its default, and what it says.

``python tests/docs/test_settings_page.py`` writes the tables anew.
"""

from __future__ import annotations

import ast
import re
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from egtp import AnswerLimits, NodeConfig, RelayLimits
from lookup_dht import DHTLimits

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "settings.md"
CLASSES: Final = {
    NodeConfig: "egtp/config.py",
    AnswerLimits: "egtp/queries/answer_limits.py",
    RelayLimits: "egtp/relay/leases.py",
    DHTLimits: "lookup_dht/settings.py",
}
TABLE: Final = re.compile(r"<!-- written from (\w+) -->\n(?:\|.*\n)*")


def told(body: list[ast.stmt]) -> dict[str, str]:
    """What the text below each field says, in one line."""
    found: dict[str, str] = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} says nothing"
            assert isinstance(text.value, ast.Constant), f"{field.target.id} says nothing"
            words = " ".join(str(text.value.value).split())
            words = re.sub(r":\w+:`~?\.?([\w.]+)`", r"``\1``", words).replace("``", "`")
            found[field.target.id] = words.replace("|", "\\|")
    return found


def shown(name: str, value: object) -> str:
    """A default as an operator would say it."""
    if "bytes" not in name or not isinstance(value, int) or value % 1024:
        return f"`{value!r}`"
    return f"{value // 2**20} MiB" if value % 2**20 == 0 else f"{value // 2**10} KiB"


def table(cls: type) -> str:
    tree = ast.parse((ROOT / CLASSES[cls]).read_text(encoding="utf-8"))
    (body,) = [
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    ]
    texts, made = told(body), cls()
    values = {field.name: getattr(made, field.name) for field in fields(cls)}
    rows = [
        f"| `{name}` | {shown(name, value)} | {texts[name]} |\n"
        for name, value in values.items()
        if not is_dataclass(value)
    ]
    head = f"<!-- written from {cls.__name__} -->\n| setting | default | |\n|---|---|---|\n"
    return head + "".join(rows)


def with_tables(text: str) -> str:
    tables = {cls.__name__: table(cls) for cls in CLASSES}
    return TABLE.sub(lambda found: tables[found[1]], text)


def test_the_page_says_what_the_classes_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text), f"python {__file__}"


def test_each_class_of_settings_is_on_the_page_once() -> None:
    found = TABLE.findall(PAGE.read_text(encoding="utf-8"))
    assert sorted(found) == sorted(cls.__name__ for cls in CLASSES)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
