"""Files that are written whole or not at all, even if the process or the machine dies."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["mode_at", "remove_leftovers", "replace_file", "sync_folder", "write_aside"]

ASIDE_SUFFIX: Final = ".tmp"
"""Without it, a user's file ``.identity.password`` could be taken for one of ours."""


def mode_at(path: Path) -> int | None:
    """The mode of what is at ``path``; None if nothing is. Raises :class:`OSError` if that cannot
    be told, whereas ``Path.exists`` returns False since Python 3.14."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def replace_file(path: Path, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Replace a file by one that only its owner can read, or by one with the owner, group and mode
    of another file. A crash leaves the old or the new one."""
    temporary = write_aside(path, data)
    try:
        if like is not None:
            os.chown(temporary, like.st_uid, like.st_gid)
            temporary.chmod(stat.S_IMODE(like.st_mode))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path)


def write_aside(path: Path, data: bytes) -> Path:
    """Write a file beside ``path``, down to the disk, that only its owner can read."""
    # Under a new name: an existing file may be somebody else's, and readable by others.
    descriptor, name = tempfile.mkstemp(ASIDE_SUFFIX, f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def remove_leftovers(paths: Sequence[Path]) -> None:
    """Remove what killed processes have written aside of these files, all of one folder. Only for
    the sole writer of the files: what another is about to put in place looks the same."""
    names = "|".join(re.escape(path.name) for path in paths)
    ours = re.compile(rf"\.({names})\.[a-z0-9_]{{8}}{re.escape(ASIDE_SUFFIX)}")
    # Leftovers that cannot be removed are no reason not to use the files.
    with contextlib.suppress(OSError), os.scandir(paths[0].parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry)


def sync_folder(path: Path) -> None:
    """Make renames and links in the folder of ``path`` survive a crash of the machine."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
