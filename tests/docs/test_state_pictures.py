"""State machines in the documents are drawn from the tables that the code runs on.

``python tests/docs/test_state_pictures.py`` draws them anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from egtp.own.own_addresses import OBSERVED_LIFE
from egtp.paths.path_life import PATH_LIFE
from egtp.queries.asker import ANSWER_LIFE
from egtp.state_table import StateTable
from egtp.tcp.connection_life import CONNECTION_LIFE

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted((ROOT / "docs").rglob("*.md"))
TABLES: Final[Mapping[str, StateTable[Any, Any]]] = {
    "ANSWER_LIFE": ANSWER_LIFE,
    "CONNECTION_LIFE": CONNECTION_LIFE,
    "OBSERVED_LIFE": OBSERVED_LIFE,
    "PATH_LIFE": PATH_LIFE,
}
PICTURE: Final = re.compile(r"<!-- drawn from (\w+) -->\n```mermaid\n.*?```\n", re.DOTALL)


def drawn(name: str) -> str:
    return f"<!-- drawn from {name} -->\n```mermaid\n{TABLES[name].mermaid()}```\n"


def with_pictures(text: str) -> str:
    """A page with all of its pictures as the tables have them."""
    return PICTURE.sub(lambda found: drawn(found[1]), text)


def texts() -> dict[str, str]:
    return {page.name: page.read_text(encoding="utf-8") for page in PAGES}


def test_each_picture_is_what_its_table_says() -> None:
    for name, text in texts().items():
        assert text == with_pictures(text), f"{name}: python {__file__}"


def test_no_state_machine_is_drawn_by_hand() -> None:
    for name, text in texts().items():
        assert text.count("stateDiagram") == len(PICTURE.findall(text)), name


def test_each_table_is_drawn_once() -> None:
    shown = [found for text in texts().values() for found in PICTURE.findall(text)]
    assert sorted(shown) == sorted(TABLES)


def test_no_table_of_the_code_is_left_out() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "egtp").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    made = {
        node.target.id
        for node in nodes
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and re.match(r"StateTable\(", ast.unparse(node.value) if node.value else "")
    }
    assert made == set(TABLES)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_pictures(page.read_text(encoding="utf-8")), encoding="utf-8")
