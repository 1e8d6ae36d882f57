"""What type checkers, ``help`` and a log line show of the public names, for who depends on EGTP."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator
from inspect import getdoc, isfunction, signature
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

import discovery
import egtp.blocking
import egtp.config
import egtp.discovery_service
import egtp.environment
import egtp.errors
import egtp.events
import egtp.lookup
import lookup_dht.settings
import simulations.virtual
from egtp import Identity, Incoming, Node, OpenQuery

REPOSITORY = Path(__file__).parent.parent.parent

BUILD = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]

PUBLIC_MODULES = (
    egtp,
    egtp.blocking,
    egtp.config,
    egtp.discovery_service,
    egtp.environment,
    egtp.errors,
    egtp.events,
    egtp.lookup,
    lookup_dht,
    lookup_dht.settings,
    discovery,
    simulations.virtual,
)

VALUES = [
    value
    for package in (egtp, lookup_dht, discovery)
    for name in package.__all__
    if isinstance(value := getattr(package, name), type) and dataclasses.is_dataclass(value)
]


@pytest.mark.parametrize("package", BUILD["targets"]["wheel"]["packages"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()


async def test_a_handler_that_was_decorated_can_be_called_as_what_it_was() -> None:
    node = Node(Identity.generate(os.urandom))

    @node.handler("twice", at_once_max=1)
    async def twice(query: Incoming) -> bytes:
        return query.body * 2

    # The annotation is the test: `make lint` refuses it where the decorator forgets the type.
    answer: bytes = await twice(Incoming.example(node.node_id, "twice", b"a"))
    assert answer == b"aa"


@pytest.mark.parametrize("node", [Node, egtp.blocking.Node])
def test_the_decorator_names_the_options_of_handle(
    node: type[Node | egtp.blocking.Node],
) -> None:
    of_handle = dict(signature(node.handle).parameters)
    del of_handle["handler"]
    assert of_handle == dict(signature(node.handler).parameters)


def test_a_blocking_node_names_the_options_of_a_node() -> None:
    of_node = signature(Node.__init__).parameters
    of_blocking = signature(egtp.blocking.Node.__init__).parameters
    assert {name: of_blocking.get(name) for name in of_node} == dict(of_node)


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Every public class and function of a module, and what those classes can be asked for."""
    for name in vars(module)["__all__"]:
        public = getattr(module, name)
        if isfunction(public) or isinstance(public, type):
            yield name, public
        for member, value in vars(public).items() if isinstance(public, type) else ():
            called = getattr(value, "fget", getattr(value, "__func__", value))
            if isfunction(called) and (member == "__init__" or not member.startswith("_")):
                yield f"{name}.{member}", called


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_the_types_of_every_public_name_can_be_asked_for(module: ModuleType) -> None:
    unknown = {}
    for name, public in public_names(module):
        try:
            get_type_hints(public)
        except NameError as error:
            unknown[name] = str(error)
    assert not unknown


@pytest.mark.reaches_in  # what is compiled has lost its docstrings
@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_help_says_something_about_every_public_name(module: ModuleType) -> None:
    names = [name for name, _ in public_names(module) if not name.endswith("__init__")]
    assert [name for name in names if not getdoc(attrgetter(name)(module))] == []


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_the_types_of_a_value_can_be_asked_for(value: type) -> None:
    assert {field.name for field in dataclasses.fields(value)} <= get_type_hints(value).keys()


def test_an_open_query_shows_what_is_for_its_asker_alone() -> None:
    shown = {name for name in dir(OpenQuery) if not name.startswith("_")}
    assert shown == {"cancel", "cancelled", "done", "exception", "result", "soft_timeout"}


def test_a_node_is_shown_by_its_peer_id() -> None:
    identity = Identity.generate(os.urandom)
    assert repr(Node(identity)) == f"Node({identity.node_id})"
    assert repr(egtp.blocking.Node(identity)) == f"blocking.Node({identity.node_id})"
