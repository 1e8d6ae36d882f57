"""Disk: the folder of a machine, which survives crashes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["Disk"]


class Disk:
    """A temporary folder on the real disk, created on first use."""

    def __init__(self, name: str) -> None:
        self._prefix: Final = f"host-{name.replace('/', '-')}-"
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = self._new()
        return self._folder

    def copy(self) -> Path | None:
        """Copy the folder, to be restored once a crash is complete: as Python destroys coroutines
        it runs their ``finally`` blocks, but a machine without power writes nothing more."""
        if self._folder is None:
            return None
        copy = self._new()
        shutil.copytree(self._folder, copy, dirs_exist_ok=True, symlinks=True)
        return copy

    def restore(self, copy: Path | None) -> None:
        """Return to the state of ``copy``, which is used up."""
        self.lose()
        if copy is not None:
            shutil.copytree(copy, self.folder, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(copy)

    def lose(self) -> None:
        """Empty the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)

    def discard(self) -> None:
        """Remove the folder from the real disk."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=self._prefix))
