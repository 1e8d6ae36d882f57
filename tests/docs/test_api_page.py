"""The page of the API is written from the docstrings of everything that the packages export.

``python tests/docs/test_api_page.py`` writes it anew.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "api.md"
MODULES: Final = ("egtp", "egtp.blocking", "egtp.events", "lookup_dht", "discovery")
PACKAGES: Final = ("egtp", "lookup_dht", "discovery")
SETTINGS: Final = ("NodeConfig", "AnswerLimits", "RelayLimits", "DHTLimits")
"""Their fields are on a page of their own."""
WRITTEN: Final = re.compile(r"<!-- ([\w.]+): ([\w ]+) -->\n.*?<!-- end -->\n", re.DOTALL)
ROLE: Final = re.compile(r":\w+:`~?\.?([^`]+)`")
LITERAL: Final = re.compile(r"``(.+?)``", re.DOTALL)
PARAMETER: Final = re.compile(r"^:param (\w+): (.*(?:\n .*)*)", re.MULTILINE)
BLOCK: Final = re.compile(r"^::\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
CALL: Final = re.compile(r"(?:await )?[\w.]+\(")
SENTENCE_END: Final = re.compile(r"(?<=[\w)`]\.)\s+(?=[A-Z`])")


def plain(text: str | None) -> str:
    """A docstring in the markup of the pages."""
    text = LITERAL.sub(r"`\1`", ROLE.sub(r"``\1``", inspect.cleandoc(text or ""))) + "\n"
    text = PARAMETER.sub(lambda found: f"* `{found[1]}`: {' '.join(found[2].split())}", text)
    return BLOCK.sub(
        lambda found: f"```python\n{textwrap.dedent(found[1]).strip()}\n```\n\n", text
    ).strip()


def first_sentence(text: str | None) -> str:
    paragraph = " ".join(plain(text).split("\n\n")[0].split())
    return SENTENCE_END.split(paragraph)[0]


def cell(text: str) -> str:
    """A text within a table, which a bar would end."""
    return text.replace("|", "\\|")


def attributes(tree: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """What a class says of its fields, and of what its ``__init__`` sets: each with its type, if it
    is named, and the text below it."""
    yield from fields(tree.body, "")
    for method in tree.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            for use, text in fields(method.body, "self."):
                assert text, f"{tree.name}.{use} says nothing"
                yield use, text


def fields(body: list[ast.stmt], of: str) -> Iterator[tuple[str, str]]:
    for field, below in pairwise([*body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign):
            target, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        elif isinstance(field, ast.Assign):
            target, kind = ast.unparse(field.targets[0]), ""
        else:
            continue
        name = target.removeprefix(of)
        if target != of + name or not name.isidentifier() or name.startswith("_"):
            continue
        kind = re.sub(r"^Final(?:\[(.*)\])?$", r"\1", kind)
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = str(below.value.value)
        yield (f"{name}: {kind}" if kind else name), text


def call(name: str, function: Any, *, bound: bool = True) -> str:
    """How it is called: the types of arguments are left to editors."""
    signature = inspect.signature(function)
    parameters = [
        one.replace(
            annotation=one.empty,
            default=Named(one.default) if inspect.isroutine(one.default) else one.default,
        )
        for one in list(signature.parameters.values())[bound:]
    ]
    shown = str(inspect.Signature(parameters))
    awaited = "await " if inspect.iscoroutinefunction(function) else ""
    returned = signature.return_annotation
    gives = "" if returned in {"None", "NoReturn", signature.empty} else f" -> {returned}"
    return f"{awaited}{name}{shown}{gives}"


class Named:
    """A function as a default, shown by its name."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __repr__(self) -> str:
        return str(self.function.__qualname__)


def members(cls: type) -> Iterator[tuple[str, str]]:
    """How each public member of a class is used, and its docstring."""
    if issubclass(cls, enum.Enum):
        texts = dict(attributes(tree_of(cls)))
        yield from ((f"{one.name} = {one.value!r}", texts[one.name]) for one in cls)
        return
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith(PACKAGES):
            continue
        yield from attributes(tree_of(base))
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            if isinstance(value, property):
                kind = inspect.signature(value.fget or str).return_annotation
                yield f"{name}: {kind}", value.__doc__ or ""
            elif isinstance(value, classmethod):
                yield call(f"{cls.__name__}.{name}", value.__func__), value.__doc__ or ""
            elif isinstance(value, staticmethod):
                yield (
                    call(f"{cls.__name__}.{name}", value.__func__, bound=False),
                    value.__doc__ or "",
                )
            elif inspect.isfunction(value):
                yield call(name, value), value.__doc__ or ""


def constructor(cls: type) -> str:
    """How to make one, if its ``__init__`` says so."""
    ours = [one for one in cls.__mro__ if one.__module__.startswith(PACKAGES)]
    made = next((vars(one)["__init__"] for one in ours if "__init__" in vars(one)), None)
    if made is None or not made.__doc__:
        return ""
    return f"`{call(cls.__name__, made)}`\n\n{plain(made.__doc__)}\n\n"


def tree_of(cls: type) -> ast.ClassDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def alias(module: ModuleType, name: str) -> str:
    """The definition of a type alias or constant, wherever that is, and the text below it."""
    for where in (module, *map(importlib.import_module, imports(module, name))):
        body = ast.parse(inspect.getsource(where)).body
        for field, below in pairwise([*body, ast.Pass()]):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name:
                assert isinstance(below, ast.Expr), f"{name} says nothing"
                assert isinstance(below.value, ast.Constant), f"{name} says nothing"
                value = "" if field.value is None else ast.unparse(field.value)
                return f"`{name} = {value}`\n\n{plain(str(below.value.value))}\n\n"
    raise AssertionError(f"{name} is defined nowhere")


def imports(module: ModuleType, name: str) -> list[str]:
    return [
        str(one.module)
        for one in ast.parse(inspect.getsource(module)).body
        if isinstance(one, ast.ImportFrom) and name in {alias.name for alias in one.names}
    ]


def entry(module_name: str, name: str) -> str:
    module = importlib.import_module(module_name)
    thing = getattr(module, name)
    if inspect.ismodule(thing):
        return f"### `{name}`\n\nThe module [`{thing.__name__}`](#{name}).\n\n"
    if inspect.isfunction(thing):
        return f"### `{name}`\n\n`{call(name, thing, bound=False)}`\n\n{plain(thing.__doc__)}\n\n"
    if not inspect.isclass(thing):
        return f"### `{name}`\n\n{alias(module, name)}"
    head = f"### `{name}`\n\n{plain(thing.__doc__)}\n\n{constructor(thing)}"
    if name in SETTINGS:
        return f"{head}Its fields: [settings](settings.md).\n\n"
    rows = {cell(use): cell(first_sentence(text)) for use, text in members(thing)}
    if not rows:
        return head
    table = "".join(f"| `{use}` | {text} |\n" for use, text in rows.items())
    return f"{head}| | |\n|---|---|\n{table}\n"


def write(found: re.Match[str]) -> str:
    module, names = found[1], found[2]
    text = "".join(entry(module, name) for name in names.split())
    return f"<!-- {module}: {names} -->\n{text}<!-- end -->\n"


def exported(module: str) -> list[str]:
    return list(importlib.import_module(module).__all__)


def test_the_page_says_what_the_docstrings_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == WRITTEN.sub(write, text), f"python {__file__}"


@pytest.mark.parametrize("module", MODULES)
def test_everything_that_a_package_exports_is_on_the_page_once(module: str) -> None:
    found = WRITTEN.findall(PAGE.read_text(encoding="utf-8"))
    on_page = Counter(name for where, names in found if where == module for name in names.split())
    assert on_page == Counter(exported(module))


@pytest.mark.parametrize("module", MODULES)
def test_each_public_class_and_method_says_what_it_is_for(module: str) -> None:
    for name in exported(module):
        thing = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing):
            silent = [use for use, text in members(thing) if CALL.match(use) and not text]
            assert thing.__doc__, name
            assert not silent, (name, silent)


if __name__ == "__main__":
    PAGE.write_text(WRITTEN.sub(write, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
