"""A fixed identity for the tests of the pure machines."""

from __future__ import annotations

import hashlib

import pytest

from egtp.identity import Identity


@pytest.fixture(scope="session")
def alice() -> Identity:
    """The same keys in every run."""
    parts = iter((b"signing", b"channel"))
    return Identity.generate(lambda _: hashlib.sha256(b"alice" + next(parts)).digest())
