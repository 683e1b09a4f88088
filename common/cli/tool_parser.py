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
    options: Options,                       a dataclass: each of its fields is a flag; before the *, as a parameter is
    json: bool = False,                     a switch
)

The decorated main(argv) parses and calls. Flags cannot be abbreviated, but may be called as elsewhere: --batch-size,
--bs (common/cli/names.py). Every mistake is a CommandLineError of one line, also an output that is an input
(common/cli/outputs.py).
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
from common.cli.errors import CommandLineError
from common.cli.names import find_name, report_synonym, unknown_name
from common.cli.outputs import refuse_overwriting
from common.cli.type_names import describe_type, shown

Result = TypeVar("Result")
Share = restricted_number_type("Share", float, [(">", 0), ("<=", 1)])  # of a whole
SHARED_HELP = {
    "device": "auto, cpu, cuda, cuda:1, ...; auto: a GPU if there is one",
    "json": "print JSON",
    "seed": "of everything that is drawn at random",
}


class ToolParser(argparse.ArgumentParser):
    """An argparse parser whose errors are exceptions, unknown flags with the nearest that exist."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._spell_out(word) for word in words], namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        for word in map(self._spell_out, words):  # an unknown flag is named before what is missing for lack of it
            flag = word.partition("=")[0]
            if len(flag) > 2 and flag.startswith("--") and " " not in flag and flag not in self._option_string_actions:
                raise CommandLineError(unknown_name(flag, self._flags(), "flag"))
        known, unknown = self.parse_known_args(words, namespace)
        if unknown:
            raise CommandLineError(f"'{unknown[0]}' belongs to no flag")
        return known

    def _flags(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def _spell_out(self, word: str) -> str:
        """A flag under the name that it has here."""
        flag, equals, value = word.partition("=")
        if not flag.startswith("-") or " " in flag or flag in self._option_string_actions:
            return word
        name = find_name(flag, [known[2:] for known in self._flags()])
        if name:
            report_synonym(flag, name)
        return f"--{name}{equals}{value}" if name else word


def tool(function: Callable[..., Result]) -> Callable[[list[str]], Result]:
    """main(**options) -> main(argv), which parses `argv` by the parameters of `function`."""

    @functools.wraps(function)
    def main(argv: list[str]) -> Result:
        values, rest = parse_tool(function, argv)
        for name, group in _dataclasses(function).items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        parameters = inspect.signature(function).parameters.values()
        before_rest = [values.pop(item.name) for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD]
        return function(*before_rest, *rest, **values)

    return main


def parse_tool(function: Callable[..., Any], argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """-> the value of each flag, the words for *settings."""
    parser, parameters = make_parser(function), inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        options, rest = parser.parse_known_args(argv)
    else:
        options, rest = parser.parse_args(argv), []
    refuse_overwriting({**vars(options), "another word": rest})
    return vars(options), rest


def make_parser(function: Callable[..., Any]) -> ToolParser:
    """The module's docstring is the description; usage names the file that holds `function`."""
    parser = ToolParser(
        prog=Path(inspect.getfile(function)).name,
        description=(sys.modules[function.__module__].__doc__ or "").strip().split("\n\n")[0],
        allow_abbrev=False,
    )
    groups, parameters = _dataclasses(function), inspect.signature(function).parameters
    definitions: dict[Callable[..., Any], bool] = {function: True}  # and whether it has positional parameters
    definitions |= {
        group: parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY for name, group in groups.items()
    }
    for definition, has_positional in definitions.items():
        comments, hints = _comments(definition), typing.get_type_hints(definition)
        for name, parameter in inspect.signature(definition).parameters.items():
            text = comments.get(name) or SHARED_HELP.get(name, "")
            if parameter.kind is parameter.VAR_POSITIONAL:
                parser.epilog = f"Every other flag is one {text}"
            if name in groups or parameter.kind is parameter.VAR_POSITIONAL:
                continue
            default = "" if parameter.default in (parameter.empty, False) else shown(parameter.default)
            text = f"{text} [{default}]".removesuffix(" []").replace("%", "%%")
            if has_positional and parameter.kind is not parameter.KEYWORD_ONLY:
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
        rule |= {"required": is_required, "metavar": describe_type(hint).removesuffix(" ...")}
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
    rest = [node.args.vararg] if node.args.vararg else []
    return {arg.arg: trailing_comment(lines, arg) for arg in (*node.args.args, *rest, *node.args.kwonlyargs)}
