"""What a bundle's own modules offer on the command line: its comparison and its further commands."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import fire

from medbundles.bundle import BundleInfo

Command = Callable[..., Any]


def comparison(info: BundleInfo) -> Command:
    """`main` of <package>.comparison; ValueError when the bundle has no comparison."""
    main: Command = _module(info, "comparison").main
    return main


def commands(info: BundleInfo) -> dict[str, Command]:
    """The functions in COMMANDS of <package>.commands by name; ValueError when the bundle has none."""
    return dict(_module(info, "commands").COMMANDS)


def describe(commands: Mapping[str, Command]) -> str:
    """Arguments and first line of the docstring of each command."""
    lines = []
    for name, function in commands.items():
        summary, *_ = (inspect.getdoc(function) or "").splitlines() or [""]
        lines.append(f"{name}{_usage(function)}\n    {summary}")
    return "\n".join(lines)


def call(function: Command, arguments: Iterable[Any], options: Mapping[str, Any]) -> Any:
    """Call a command; ValueError with its usage when the arguments do not fit its signature."""
    try:
        bound = inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"{error}; usage: {function.__name__}{_usage(function)}") from error
    return function(*bound.args, **bound.kwargs)


def show_help(function: Command, *words: str) -> None:
    """Show the arguments and the docstring of the command `medbundles WORDS`, then exit with status 0."""
    component: Any = function
    for word in reversed(words):
        component = {word: component}
    fire.Fire(component, command=[*words, "--", "--help"], name="medbundles")


def _usage(function: Command) -> inspect.Signature:
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)


def _module(info: BundleInfo, name: str) -> Any:
    if importlib.util.find_spec(f"{info.package}.{name}") is None:
        raise ValueError(f"bundle {info.name} has no {name}: there is no module {info.package}.{name}")
    return importlib.import_module(f"{info.package}.{name}")
