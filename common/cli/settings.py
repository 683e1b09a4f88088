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
from argparse import ArgumentError, Namespace
from collections.abc import Iterator
from itertools import pairwise, takewhile
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
    base = {flag: (defaults or {}).get(_plain(flag), setting.value) for flag, setting in settings.items()}
    has_demo = hasattr(module, "DEMO") or (by_name / "demo.yaml").is_file()
    parser = jsonargparse.ArgumentParser(
        usage=f"{Path(sys.argv[0]).name} [--name value ...]" + (" [--demo]" if has_demo else ""),
        description=description.strip().split("\n\n")[0],
        exit_on_error=False,
        default_env=False,
    )
    if has_demo:
        parser.add_argument("--demo", action="store_true", help="a small run with sample data")
    parser.add_argument("--config", help="JSON or YAML file of settings, in sections or flat")
    for flag, setting in settings.items():
        alone: Any = (
            [] if setting.type == list[str] else True if "bool" in str(setting.type) else None
        )  # without a value
        arity: dict[str, Any] = {} if alone is None else {"nargs": "?", "const": alone}
        parser.add_argument(f"--{flag}", type=setting.type, default=base[flag], help=setting.help, **arity)

    layers = [("default.yaml" if sectioned else "config.py", base)]
    try:
        words = vars(parser.parse_args(_spell_out(argv, settings, has_demo), defaults=False).as_flat())
        parser.set_defaults(dict.fromkeys(settings))  # shown by --help; a value equal to a default is not checked
        demo, name = words.pop("demo", False), words.pop("config", None)
        if demo and sectioned:
            layers.append(("demo.yaml", _file_values(by_name / "demo.yaml", list(settings), whole_path=True)))
        elif demo:
            layers.append(("DEMO", {name.lower(): value for name, value in module.DEMO.items()}))
        file = _find_config(by_name, name) if name else neighbour
        if name or (not sectioned and neighbour.is_file() and not demo and defaults is None):
            layers.append((file.name, _file_values(file, list(settings), whole_path=sectioned)))
        layers.append(("the command line", words))
        values = {
            flag: value if isinstance(value, str | list) else json.dumps(value)
            for _, layer in layers
            for flag, value in layer.items()
        }
        parsed = parser.parse_object(values, defaults=False)
    except ArgumentError as error:
        raise ValueError(_shorten(error.message or str(error))) from None
    _report_overrides(layers)
    plain = json.dumps({_plain(flag): parsed[flag] for flag in settings})  # PositiveInt and the like become int
    return Namespace(demo=bool(demo or (defaults or {}).get("demo")), **json.loads(plain))


def _spell_out(argv: list[str], settings: dict[str, Setting], has_demo: bool) -> list[str]:
    """A command line as the parser reads it, which appends to a list by +=.

    A dot in a flag may also be written as _; the words behind the flag of a list, or a word of JSON, are its elements.
    """
    flags = {
        _plain(f"--{name}"): f"--{name}" for name in ("help", "config", *(["demo"] if has_demo else []), *settings)
    }
    words, list_flag = [], ""
    for word in argv:
        written, equals, value = word.partition("=")
        if not word.startswith("--"):
            words.append(f"{list_flag}+={word}" if list_flag else word)
            continue
        if _plain(written) not in flags:
            raise ValueError(unknown_name(written, [f"--{name}" for name in settings], "flag"))
        flag = flags[_plain(written)]
        list_flag = flag if flag[2:] in settings and settings[flag[2:]].type == list[str] else ""
        words += [flag, f"{flag}+={value}"] if list_flag and equals else [flag + equals + value]
    return words


def _shorten(message: str) -> str:
    """jsonargparse's reason for refusing a value, without the words of its implementation."""
    message = re.sub(r"^unrecognized arguments: (\S+).*", r"'\1' has no flag; settings are --name value", message)
    message = re.sub(r'^Parser key "(.+?)"(?: element \d+)?:\s*', r"--\1: ", message)
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
        lines = (f"{places}: {', '.join(flags)}" for places, flags in overrides.items())
        print("settings:", "; ".join(lines), file=sys.stderr)


def unknown_name(name: str, known: list[str], what: str) -> str:
    """One line for a name that does not exist, with the nearest that do."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"unknown {what} '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else "")


def _plain(name: str) -> str:
    """The form in which names are compared: training.batch-size and training_batch_size are equal."""
    return name.lower().replace(".", "_").replace("-", "_")


def _find_config(by_name: Path, name: str) -> Path:
    """NAME -> configs/NAME.yaml, or the file of that name."""
    for file in (by_name / f"{name}.yaml", Path(name)):
        if file.is_file():
            return file
    names = ", ".join(sorted(path.stem for path in by_name.glob("*.yaml")))
    raise FileNotFoundError(f"{name}: no such file{f', nor one of {names}' if names else ''} (--config)")


def _file_values(file: Path, known: list[str], whole_path: bool) -> dict[str, object]:
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
            raise ValueError(f"{file}: " + unknown_name(("." if whole_path else "_").join(path), known, "setting"))
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
    values, lines = _file_values(file, list(known), whole_path=True), file.read_text(encoding="utf-8").splitlines()
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
    above = (text.strip() for text in reversed(lines[: line - 1]))
    block = list(takewhile(lambda text: text.startswith("# ") and not text.startswith("# ---"), above))
    return (behind or " ".join(text[2:] for text in reversed(block))).replace("%", "%%")
