"""Command lines of tools, declared by the parameters of their main().

@tool                                       python compare.py a.png b.png --weights W [--top_k 5] [--json]
def main(
    *settings: str,                         (in place of positional ones) the words that belong to no flag here
    image: Path,                            positional
    other: Path,
    *,
    weights: Path,  # trained by train.py   a flag that must be given; its comment is its help
    top_k: PositiveInt = 5,                 the annotation is the rule: jsonargparse.typing has numbers with limits
    format: Literal["onnx", "timm"] = "onnx",
    queries: Sequence[str] = (),            one or more words
    options: Options,                       a dataclass: each of its fields is a flag
    json: bool = False,                     a switch
)

The decorated main(argv) parses and calls. Flags cannot be abbreviated; every mistake is a ValueError of one line.
"""

import argparse
import ast
import dataclasses
import functools
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse.typing import restricted_number_type

from common.cli.config_files import trailing_comment
from common.cli.names import unknown_name

Result = TypeVar("Result")
Share = restricted_number_type("Share", float, [(">", 0), ("<=", 1)])  # of a whole
SHARED_HELP = {
    "device": "auto, cpu, cuda, cuda:1, ...; auto: a GPU if there is one",
    "json": "print JSON",
    "seed": "of everything that is drawn at random",
}


class ToolParser(argparse.ArgumentParser):
    """An argparse parser whose errors are ValueErrors, unknown flags with the nearest that exist."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word, flags = unknown[0].partition("=")[0], [flag for flag in self._option_string_actions if flag[1] == "-"]
            raise ValueError(unknown_name(word, flags, "flag") if word[0] == "-" else f"'{word}' belongs to no flag")
        return known


def tool(function: Callable[..., Result]) -> Callable[[list[str]], Result]:
    """main(**options) -> main(argv), which parses `argv` by the parameters of `function`."""

    @functools.wraps(function)
    def main(argv: list[str]) -> Result:
        parser, parameters = make_parser(function), inspect.signature(function).parameters.values()
        takes_rest = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
        options, rest = parser.parse_known_args(argv) if takes_rest else (parser.parse_args(argv), [])
        values = vars(options)
        for name, group in _dataclasses(function).items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        return function(*rest, **values)

    return main


def make_parser(function: Callable[..., Any]) -> ToolParser:
    """The module's docstring is the description; usage names the file that holds `function`."""
    parser = ToolParser(
        prog=Path(inspect.getfile(function)).name,
        description=(sys.modules[function.__module__].__doc__ or "").strip().split("\n\n")[0],
        allow_abbrev=False,
    )
    groups = _dataclasses(function)
    definitions: list[Callable[..., Any]] = [function, *groups.values()]
    for definition in definitions:
        comments, hints = _comments(definition), typing.get_type_hints(definition)
        for name, parameter in inspect.signature(definition).parameters.items():
            if name in groups or parameter.kind is parameter.VAR_POSITIONAL:
                continue
            text = (comments.get(name) or SHARED_HELP.get(name, "")).replace("%", "%%")
            if definition is function and parameter.kind is not parameter.KEYWORD_ONLY:
                parser.add_argument(name, help=text, **_rule(hints[name], parameter, name))
            else:  # lambda_, since lambda is a word of Python, is --lambda
                flag = f"--{name.rstrip('_')}"
                parser.add_argument(flag, dest=name, help=text, **_rule(hints[name], parameter, flag))
    return parser


def _dataclasses(function: Callable[..., Any]) -> dict[str, type]:
    """The parameters of `function` whose fields are flags, and their classes."""
    hints, names = typing.get_type_hints(function), inspect.signature(function).parameters
    return {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}


def _rule(hint: Any, parameter: inspect.Parameter, flag: str) -> dict[str, Any]:
    """An annotation and a default -> arguments of add_argument."""
    if hint is bool:
        return {"action": "store_true"}
    is_required, is_flag = parameter.default is parameter.empty, flag.startswith("--")
    rule: dict[str, Any] = {} if is_required else {"default": parameter.default}
    if is_flag:
        rule["required"] = is_required
    elif not is_required:
        rule["nargs"] = "?"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):  # X | None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) in (list, Sequence):
        (hint,) = typing.get_args(hint)
        rule["nargs"] = "*" if "nargs" in rule else "+"  # a positional list with a default may be empty
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        return rule | {"choices": choices, "type": type(choices[0])}
    return rule | {"type": hint if hint in (str, int, float, Path) else functools.partial(_convert, hint)}


def _convert(hint: Any, word: str) -> Any:
    """To a type of jsonargparse.typing, whose reason for refusing a word reaches the reader."""
    try:
        return hint(float(word)) if issubclass(hint, float) else hint(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{word}': {error}") from None


def _comments(definition: Callable[..., Any]) -> dict[str, str]:
    """The comment behind each parameter of a function, or behind each field of a dataclass."""
    lines = textwrap.dedent(inspect.getsource(definition)).splitlines()
    node: Any = ast.parse("\n".join(lines)).body[0]
    if isinstance(node, ast.ClassDef):
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        return {ast.unparse(field.target): trailing_comment(lines, field) for field in fields}
    return {arg.arg: trailing_comment(lines, arg) for arg in (*node.args.args, *node.args.kwonlyargs)}
