"""Disk: the folder of a machine, which outlives its crashes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["Disk"]


class Disk:
    """Is not on the real disk before somebody asks for it."""

    def __init__(self, name: str) -> None:
        self._prefix: Final = f"host-{name.replace('/', '-')}-"
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = self._new()
        return self._folder

    def copy(self) -> Path | None:
        """As it is now. Python runs ``finally`` when it throws a coroutine away; a machine without
        power writes nothing more."""
        if self._folder is None:
            return None
        copy = self._new()
        shutil.copytree(self._folder, copy, dirs_exist_ok=True, symlinks=True)
        return copy

    def restore(self, copy: Path | None) -> None:
        """As it was when the copy was made, which is used up."""
        self.lose()
        if copy is not None:
            shutil.copytree(copy, self.folder, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(copy)

    def lose(self) -> None:
        """It is empty from now on."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)

    def discard(self) -> None:
        """Remove what a run leaves on the real disk."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=self._prefix))
