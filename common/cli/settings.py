"""Settings: values that a user edits in a config file, each with a flag of the same name that overrides it.

    config.py  BATCH_SIZE: int = 32  # images per step    ->   --batch_size 32   in `--help`, with that comment
    later wins: config.py < config.json in its folder, or --config FILE < command line

A module with TYPES has sections, and its values in configs/default.yaml: with {"model": {"lora": {"rank": int}}} the
file says `model: {lora: {rank: 8}}`, with a comment as help, and the flag is --model.lora.rank.

    later wins: configs/default.yaml < --config NAME (configs/NAME.yaml) or FILE < command line

The types are the rules: jsonargparse checks each value against them, whatever its source. Where files set a value
twice, or the command line replaces that of a file, one line on stderr says which won.
"""

import ast
import difflib
import inspect
import json
import os
import re
import sys
from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, cast

import jsonargparse
import yaml


class _Loader(yaml.SafeLoader):
    """YAML whose 1e-4 is a number, as in JSON and in Python."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


class Setting(NamedTuple):
    type: object
    value: object  # unless a file or a flag says otherwise
    help: str


def read_settings(
    module: ModuleType, argv: list[str], description: str = "", defaults: dict[str, object] | None = None
) -> Namespace:
    """Settings of `module`, overridden by files, overridden by `argv` -> Namespace with lower-case names, _ for dots.

    `--demo` puts the module's DEMO, or configs/demo.yaml, over its values. `defaults`: values of an earlier run by
    those names, in place of the module's. ValueError names an unknown flag, or an unknown name in a file, with the
    nearest real one, or a value of the wrong type.
    """
    folder = Path(inspect.getfile(module)).parent
    by_name, neighbour = folder / "configs", folder / "config.json"
    sectioned = hasattr(module, "TYPES")
    settings = _sections(module.TYPES, by_name / "default.yaml") if sectioned else _constants(module)
    known = {flag: setting.type for flag, setting in settings.items()}
    words = _parse_words(argv, known)
    demo, show_help, name = (words.pop(option, None) for option in ("demo", "help", "config"))
    base = {flag: (defaults or {}).get(_plain(flag), setting.value) for flag, setting in settings.items()}
    layers = [("default.yaml" if sectioned else "config.py", base)]
    if demo and sectioned:
        layers.append(("demo.yaml", _file_values(by_name / "demo.yaml", known, whole_path=True)))
    elif demo:
        layers.append(("DEMO", {name.lower(): value for name, value in module.DEMO.items()}))
    file = _find_config(by_name, name) if name else neighbour
    if name or (not sectioned and neighbour.is_file() and not demo and defaults is None):
        layers.append((file.name, _file_values(file, known, whole_path=sectioned)))
    layers.append(("the command line", words))
    values = {flag: value for _, layer in layers for flag, value in layer.items()}

    has_demo = hasattr(module, "DEMO") or (by_name / "demo.yaml").is_file()
    parser = jsonargparse.ArgumentParser(
        usage=f"{Path(sys.argv[0]).name} [--name value ...]" + (" [--demo]" if has_demo else ""),
        description=description.strip().split("\n\n")[0],
        exit_on_error=False,
        default_env=False,
    )
    if has_demo:  # parsed already; here for --help
        parser.add_argument("--demo", action="store_true", help="a small run with sample data")
    parser.add_argument("--config", help="JSON or YAML file of settings, in sections or flat")
    for flag, setting in settings.items():  # values come as words: jsonargparse does not check a default
        default = base[flag] if show_help else None
        parser.add_argument(f"--{flag}", type=setting.type, default=default, help=setting.help)
    arguments = [f"--{flag}={value if isinstance(value, str) else json.dumps(value)}" for flag, value in values.items()]
    try:
        parsed = parser.parse_args(["--help"] if show_help else arguments)
    except ArgumentError as error:
        raise ValueError(_shorten(error.message or str(error))) from None
    _report_overrides(layers)
    plain = json.dumps({_plain(flag): parsed[flag] for flag in settings})  # PositiveInt and the like become int
    return Namespace(demo=bool(demo or (defaults or {}).get("demo")), **json.loads(plain))


def _shorten(message: str) -> str:
    """jsonargparse's reason for refusing a value, without the words of its implementation."""
    message = re.sub(r'^Parser key "(.+?)":\s*', r"--\1: ", message)
    message = re.sub(r"Expected a typing\.Literal\[(.+?)\]\. Got value: (.*)", r"'\2', expected one of \1", message)
    return re.sub(r"Not of type \w+: (\S+) does not conform to restriction", r"\1, expected", message)


def _report_overrides(layers: list[tuple[str, dict[str, object]]]) -> None:
    """Name what is set in two places and which one won; the command line over defaults needs no words."""
    overrides: dict[str, list[str]] = {}
    for flag in layers[0][1]:
        values = [(source, layer[flag]) for source, layer in layers if flag in layer]
        for (earlier, before), (later, after) in pairwise(values):
            if after != before and (earlier, later) != (layers[0][0], layers[-1][0]):
                overrides.setdefault(f"{later} over {earlier}", []).append(flag)
    if overrides and os.environ.get("RANK", "0") == "0":
        lines = [f"{places}: {', '.join(flags)}" for places, flags in overrides.items()]
        print(f"settings: {'; '.join(lines)}", file=sys.stderr)


def unknown_name(name: str, known: list[str], what: str) -> str:
    """One line for a name that does not exist, with the nearest that do."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"unknown {what} '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else "")


def _plain(name: str) -> str:
    """The form in which names are compared: training.batch-size and training_batch_size are equal."""
    return name.lower().replace(".", "_").replace("-", "_")


def _find_config(by_name: Path, name: str) -> Path:
    """NAME -> configs/NAME.yaml, or the file of that name."""
    file = by_name / f"{name}.yaml"
    if file.is_file() or Path(name).is_file():
        return file if file.is_file() else Path(name)
    names = ", ".join(sorted(path.stem for path in by_name.glob("*.yaml")))
    raise FileNotFoundError(f"{name}: no such file{f', nor one of {names}' if names else ''} (--config)")


def _file_values(file: Path, known: dict[str, object], whole_path: bool) -> dict[str, object]:
    """Settings of a JSON or YAML file by flag.

    `key` in `section` means the setting section.key (whole_path), or else `key` or `section_key`.
    """
    content = read_mapping(file)
    plain = {_plain(name): name for name in known}
    values: dict[str, object] = {}
    for path, value in _entries(content):
        starts = [0] if whole_path else range(len(path) - 1, -1, -1)
        name = next((plain[key] for key in (_plain("_".join(path[at:])) for at in starts) if key in plain), None)
        if name is None:
            raise ValueError(
                f"{file}: " + unknown_name(("." if whole_path else "_").join(path), list(known), "setting")
            )
        if name in values:
            raise ValueError(f"{file}: '{name}' is set twice")
        values[name] = value
    return values


def read_mapping(file: Path) -> dict[str, Any]:
    """The names and values of a JSON or YAML file."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file (--config)")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON or YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected names and values, found {type(content).__name__}")
    return content


def _entries(content: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """{"model": {"lora": {"rank": 8}}} -> (("model", "lora", "rank"), 8)."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _entries(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _parse_words(argv: list[str], known: dict[str, object]) -> dict[str, Any]:
    """Values of a command line by flag, and demo, help and config where they are given.

    A list takes the words behind its flag, a bool none or one; a dot in a flag may also be written as _.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=SUPPRESS)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config")
    for name, kind in known.items():
        arity: dict[str, Any] = {"nargs": "*"} if kind == list[str] else {}
        if "bool" in str(kind):
            arity = {"nargs": "?", "const": "true"}
        parser.add_argument(f"--{_plain(name)}", dest=name, **arity)
    flags = {word: word.partition("=") for word in argv if word.startswith("--")}
    plain = {word: f"--{_plain(flag[2:])}{equals}{value}" for word, (flag, equals, value) in flags.items()}
    try:
        options, unknown = parser.parse_known_args([plain.get(word, word) for word in argv])
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    if unknown and not unknown[0].startswith("--"):
        raise ValueError(f"'{unknown[0]}' has no flag; settings are given as --name value")
    if unknown:
        flag = next(flags[word][0] for word in argv if plain.get(word) == unknown[0])
        raise ValueError(unknown_name(flag, [f"--{name}" for name in known], "flag"))
    return {flag: value[0] if _is_json_list(value) else value for flag, value in vars(options).items()}


def _is_json_list(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1 and value[0].startswith("[")


def trailing_comment(lines: list[str], node: Any) -> str:
    """What the comment behind a node of ast says: the help of a setting or a flag."""
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()  # ast counts bytes
    return behind.partition("  # ")[2].strip()


def _constants(module: ModuleType) -> dict[str, Setting]:
    """The constants of a module, with the comment behind or above each.

    One without an annotation has the type of its value; dictionaries and what is annotated as Final are no settings.
    """
    lines = inspect.getsource(module).splitlines()
    nodes = [node for node in ast.parse("\n".join(lines)).body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    settings, types = {}, inspect.get_annotations(module)
    for node in nodes:
        name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
        value = getattr(module, name, None)
        kind = types.get(name, list[str] if isinstance(value, list) else type(value))
        if name.isupper() and kind is not Final and not isinstance(value, dict):
            settings[name.lower()] = Setting(kind, value, _help(lines, node.lineno, trailing_comment(lines, node)))
    return settings


def _sections(types: dict[str, object], file: Path) -> dict[str, Setting]:
    """Types in sections, the YAML file with a value for each -> settings with the file's comments."""
    known = {".".join(path): kind for path, kind in _entries(types)}
    values, lines = _file_values(file, known, whole_path=True), file.read_text(encoding="utf-8").splitlines()
    if missing := [flag for flag in known if flag not in values]:
        raise ValueError(f"{file}: no value for {', '.join(missing)}; this file holds every setting")

    def helps(node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for key, value in node.value:
            line, end = key.start_mark.line, value.end_mark.column
            if isinstance(value, yaml.MappingNode):
                yield from helps(value, (*path, key.value))
            else:
                yield ".".join((*path, key.value)), _help(lines, line + 1, lines[line][end:].partition("# ")[2])

    comments = dict(helps(cast(yaml.MappingNode, yaml.compose("\n".join(lines))), ()))
    return {flag: Setting(kind, values[flag], comments.get(flag, "")) for flag, kind in known.items()}


def _help(lines: list[str], line: int, behind: str) -> str:
    """The comment behind the setting of line number `line`, or else the block of comments above it."""
    block: list[str] = []
    while not behind and line > 1 and lines[line - 2].lstrip().startswith("# "):
        if lines[line - 2].startswith("# ---"):
            break
        block.insert(0, lines[line - 2].strip()[2:])
        line -= 1
    return (behind or " ".join(block)).replace("%", "%%")
