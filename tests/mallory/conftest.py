"""Small worlds come and go by the thousand, and each ends with a look for garbage."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def frozen_garbage() -> None:
    """What was imported need not be looked at each time."""
    gc.collect()
    gc.freeze()
