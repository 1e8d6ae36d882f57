"""Compiles the busiest modules, for who wants it: ``EGTP_COMPILE=1 pip install .``

Without that the package is pure Python, and neither mypy nor a C compiler is needed. The sources
are the same, and stay in the package beside what was made of them, for tracebacks and readers.
See docs/decisions/0012-the-busiest-modules-can-be-compiled.md.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RUNTIME = "misc_ops.c"
DEPRECATED_THROW = "PyObject_CallFunctionObjArgs(_m, type, value, traceback, NULL)"


class CompileHook(BuildHookInterface):  # type: ignore[misc]
    """Modules are those that pyproject.toml names for this hook."""

    def _wanted(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("EGTP_COMPILE", "0") not in ("", "0")

    def dependencies(self) -> list[str]:
        """What building needs. The package's own dependencies say what their types are."""
        if not self._wanted():
            return []
        return [*self.config["requires"], *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard" or not self._wanted():
            return
        missing = _missing()
        if missing:
            raise SystemExit(
                f"EGTP_COMPILE=1 needs {' and '.join(missing)} (on Debian: apt install gcc "
                "python3-dev); without EGTP_COMPILE the package is pure Python and needs neither"
            )
        self._made = tempfile.TemporaryDirectory(prefix="egtp-compiled-")
        library = Path(self._made.name, "lib")
        with contextlib.chdir(self.root):
            _compile(self.config["modules"], Path(self._made.name, "c"), library)
        build_data |= {"pure_python": False, "infer_tag": True}
        for made in library.rglob("*.*"):
            build_data["force_include"][str(made)] = str(made.relative_to(library))

    def finalize(self, *_: Any) -> None:
        """The wheel is written."""
        if self._wanted():
            self._made.cleanup()


def _missing() -> list[str]:
    """What compiling needs and this machine has not, as far as is seen at once."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    missing = [] if shutil.which(compiler) else [f"a C compiler ({compiler} is not there)"]
    return missing if header.is_file() else [*missing, f"the headers of Python ({header})"]


def _compile(modules: list[str], sources: Path, library: Path) -> None:
    """Raises if there is no compiler, or a module that cannot be compiled: it was asked for."""
    # What pure builds do not have.
    import mypyc  # noqa: PLC0415
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415

    paths = [f"{module.replace('.', '/')}.py" for module in modules]
    extensions = mypycify(paths, group_name="egtp", target_dir=str(sources), debug_level="0")
    fixed = _runtime_that_throws_as_it_should(Path(mypyc.__file__).with_name("lib-rt"))
    (sources / RUNTIME).write_text(fixed, encoding="utf-8")
    for extension in extensions:
        extension.include_dirs.insert(0, str(sources))  # before mypyc's own
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(library), str(sources)
    command.ensure_finalized()
    command.run()


def _runtime_that_throws_as_it_should(lib_rt: Path) -> str:
    """From Python 3.12 on, ``throw`` with three arguments is deprecated. mypyc's runtime calls it
    for whatever ends an ``await``, so where warnings are errors nothing could be cancelled
    (https://github.com/mypyc/mypyc/issues/1214)."""
    text = (lib_rt / RUNTIME).read_text(encoding="utf-8")
    return text.replace(DEPRECATED_THROW, "PyObject_CallFunctionObjArgs(_m, value, NULL)")
