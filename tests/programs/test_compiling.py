"""``EGTP_COMPILE=1 pip install .`` says what is missing, before it begins."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import mypyc
import pytest

HOOK = Path(__file__).resolve().parents[2] / "hatch_build.py"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The builder that calls it is not installed here."""
    builder: Any = ModuleType("interface")
    builder.BuildHookInterface = object
    monkeypatch.setitem(sys.modules, "hatchling.builders.hooks.plugin.interface", builder)
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hook(module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a build that is to compile."""
    monkeypatch.setenv("EGTP_COMPILE", "1")
    hook = module.CompileHook()
    hook.target_name, hook.root = "wheel", str(HOOK.parent)
    return hook


def test_without_a_c_compiler_one_sentence_says_so(
    hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "/none/cc -O2")
    with pytest.raises(SystemExit, match=r"needs a C compiler \(/none/cc is not there\)"):
        hook.initialize("standard", {})
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(SystemExit, match=r"C compiler .* and the headers of Python"):
        hook.initialize("standard", {})


def test_a_pure_build_needs_neither(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/none/cc")
    monkeypatch.setenv("EGTP_COMPILE", "0")
    hook.initialize("standard", {})


def test_compiled_code_does_not_throw_as_is_deprecated(module: Any) -> None:
    """If mypyc has changed, look whether it still needs this."""
    lib_rt = Path(mypyc.__file__).with_name("lib-rt")
    theirs = (lib_rt / module.RUNTIME).read_text(encoding="utf-8")
    assert theirs.count(module.DEPRECATED_THROW) == 1
    assert module.DEPRECATED_THROW not in module._runtime_that_throws_as_it_should(lib_rt)
