"""The page about connections says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from egtp import NodeConfig

PAGE = Path(__file__).parents[2] / "docs" / "connections.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^ |]+) \|", re.MULTILINE)


def test_every_setting_of_connections_is_on_the_page_with_its_default() -> None:
    told = dict(ROW.findall(PAGE.read_text()))
    defaults = {field.name: str(field.default) for field in fields(NodeConfig)}
    assert told == {name: defaults[name] for name in told}
    names = list(defaults)
    about_tcp = names[names.index("connections_max") : names.index("peer_receive_bytes_per_s") + 1]
    assert set(about_tcp) <= set(told)
