"""Fixed identities and the frozen vectors, shared by the tests of the secure channel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from egtp.identity import Identity


def fixed_identity(name: str) -> Identity:
    """The same keys in every run: failures can be compared."""
    parts = iter((b"signing", b"channel"))
    return Identity.generate(lambda _: hashlib.sha256(name.encode() + next(parts)).digest())


@pytest.fixture(scope="session")
def alice() -> Identity:
    return fixed_identity("alice")


@pytest.fixture(scope="session")
def bob() -> Identity:
    return fixed_identity("bob")


@pytest.fixture(scope="session")
def mallory() -> Identity:
    return fixed_identity("mallory")


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """What ``vectors.json`` holds: bytes that may never change, for second implementers too."""
    path = Path(__file__).with_name("vectors.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return loaded
