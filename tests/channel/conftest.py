"""The frozen vectors of the secure channel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """What ``vectors.json`` holds: bytes that may never change, for second implementers too."""
    path = Path(__file__).with_name("vectors.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return loaded
