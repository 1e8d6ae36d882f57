"""The program on the page for operators does what the page says."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from pathlib import Path
from typing import Any

import pytest

from discovery import DiscoveryMan
from egtp import IdentityFile, Incoming, Node
from lookup_dht import DHTLookup, KeptState

PAGE = Path(__file__).parents[2] / "docs/operations.md"


async def status(query: Incoming) -> bytes:
    return query.body


async def test_the_program_for_a_fleet_ends_when_told_though_nobody_stores_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "relays.toml").touch()
    (shown,) = [
        block.partition("\n```")[0]
        for block in PAGE.read_text().split("```python\n")[1:]
        if "KeptState(" in block
    ]
    names: dict[str, Any] = {
        "BOOTSTRAP": [],
        "DHTLookup": DHTLookup,
        "DiscoveryMan": DiscoveryMan,
        "IdentityFile": IdentityFile,
        "KeptState": KeptState,
        "Node": Node,
        "Path": Path,
        "logging": logging,
        "status": status,
        "stopped": asyncio.Event(),
    }
    exec("async def program():\n" + textwrap.indent(shown, "    "), names)  # noqa: S102
    names["stopped"].set()
    async with asyncio.timeout(20):
        await names["program"]()
