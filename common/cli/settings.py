"""Settings: what a user edits in a config file, and the flag of the same name that overrides it.

    config.py  BATCH_SIZE: int = 32  # images per step    ->   --batch_size 32   in `--help`, with that comment
    later wins: config.py < config.json beside it, or --config FILE < command line

A module that lists SECTIONS has its settings in them: with "model.lora" among them, MODEL_LORA_RANK is
`model: {lora: {rank: 8}}` in a file and --model.lora.rank as a flag. Its folder configs/ holds files by name:

    later wins: config.py < configs/default.yaml < --config NAME (configs/NAME.yaml) or FILE < command line

The types on the constants are the rules: jsonargparse checks each value against them, whatever its source.
"""

import ast
import difflib
import inspect
import json
import sys
from argparse import ArgumentError, Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jsonargparse
import yaml


def read_settings(
    module: ModuleType, argv: list[str], description: str = "", given: dict[str, object] | None = None
) -> Namespace:
    """Constants of `module`, overridden by files, overridden by `argv` -> Namespace with lower-case names.

    `--demo` puts the module's DEMO values in place of the constants; flags still win. `given`: values by lower-case
    name, an older run's for instance, in place of constants and files. ValueError names an unknown flag or an unknown
    name in a file with the nearest real one, or a value of the wrong type.
    """
    argv = list(argv)
    demo = "--demo" in argv
    if demo:
        argv.remove("--demo")
    files = _config_files(Path(module.__file__).parent, argv, with_default=not demo and given is None)
    parser = jsonargparse.ArgumentParser(
        usage=f"{Path(sys.argv[0]).name} [--name value ...]" + (" [--demo]" if hasattr(module, "DEMO") else ""),
        description=description.strip().split("\n\n")[0],
        exit_on_error=False,
        default_env=False,
    )
    if hasattr(module, "DEMO"):  # taken off before this parser; here for --help
        parser.add_argument("--demo", action="store_true", help="try it out: the DEMO values of config.py")
    parser.add_argument("--config", help="JSON or YAML file of settings, in sections or flat")
    kinds, sections = inspect.get_annotations(module), getattr(module, "SECTIONS", ())
    comments = _comments(module)
    names = {_flag_name(name, sections): name for name in kinds}
    for flag, name in names.items():
        default = module.DEMO.get(name, getattr(module, name)) if demo else getattr(module, name)
        default = (given or {}).get(name.lower(), default)
        parser.add_argument(f"--{flag}", type=kinds[name], default=default, help=comments.get(name, ""))
    known = {flag: kinds[name] for flag, name in names.items()}
    written = [argument for file in files for argument in _file_values(file, known, whole_path=bool(sections))]
    try:
        settings = parser.parse_args(written + _explicit_values(argv, known))
    except ArgumentError as error:
        raise ValueError(error.message or str(error)) from None
    return Namespace(demo=demo, **{name.lower(): settings[flag] for flag, name in names.items()})


def unknown_name(name: str, known: list[str], what: str) -> str:
    """One line for a name that does not exist, with the nearest that do."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"unknown {what} '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else "")


def _flag_name(name: str, sections: tuple[str, ...]) -> str:
    """MODEL_LORA_RANK -> model.lora.rank, by the longest of the sections that it begins with."""
    for section in sorted(sections, key=len, reverse=True):
        if name.lower().startswith(f"{_plain(section)}_"):
            return f"{section}.{name.lower()[len(section) + 1 :]}"
    return name.lower()


def _plain(name: str) -> str:
    """How names are compared: training.batch-size and training_batch_size are one."""
    return name.lower().replace(".", "_").replace("-", "_")


def _config_files(folder: Path, argv: list[str], with_default: bool) -> list[Path]:
    """The files to read, the weakest first; `--config` is taken off argv."""
    named = _take_config(argv)
    by_name = folder / "configs"
    if not by_name.is_dir():
        beside = folder / "config.json"
        if named:
            return [_existing(Path(named))]
        return [beside] if with_default and beside.is_file() else []
    files = [by_name / "default.yaml"] if with_default else []
    if named:
        file = by_name / f"{named}.yaml"
        if not file.is_file() and not Path(named).is_file():
            names = ", ".join(sorted(path.stem for path in by_name.glob("*.yaml")))
            raise FileNotFoundError(f"{named}: no such file, nor one of {names} (--config)")
        files.append(file if file.is_file() else Path(named))
    return files


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file (--config)")
    return file


def _take_config(argv: list[str]) -> str:
    """Take `--config FILE` or `--config=FILE` off the list -> FILE, or ''."""
    for position, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] or (argv[position + 1] if position + 1 < len(argv) else "")
            if not value:
                raise ValueError("--config needs a file")
            del argv[position : position + (1 if "=" in word else 2)]
            return value
    return ""


def _file_values(file: Path, known: dict[str, object], whole_path: bool) -> list[str]:
    """Settings of a JSON or YAML file as arguments.

    `key` in `section` means the setting section.key (whole_path), or else `key` or `section_key`.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON or YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected names and values, found {type(content).__name__}")
    plain = {_plain(name): name for name in known}
    values: dict[str, object] = {}
    for path, value in _entries(content):
        starts = [0] if whole_path else range(len(path) - 1, -1, -1)
        name = next((plain[one] for one in (_plain("_".join(path[at:])) for at in starts) if one in plain), None)
        if name is None:
            raise ValueError(
                f"{file}: " + unknown_name(("." if whole_path else "_").join(path), list(known), "setting")
            )
        if name in values:
            raise ValueError(f"{file}: '{name}' is set twice")
        values[name] = value
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def _entries(content: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """{"model": {"lora": {"rank": 8}}} -> (("model", "lora", "rank"), 8)."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _entries(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _explicit_values(argv: list[str], known: dict[str, object]) -> list[str]:
    """`--flag` of a bool -> `--flag=true`; the words after a list's flag -> one JSON list; unknown flags refused."""
    plain = {_plain(name): name for name in known}
    arguments: list[str] = []
    position = 0
    while position < len(argv):
        flag, equals, value = argv[position].partition("=")
        position += 1
        if flag in ("-h", "--help"):
            arguments.append("--help")
            continue
        if not flag.startswith("--"):
            raise ValueError(f"'{flag}' stands alone; settings are given as --name value")
        name = plain.get(_plain(flag[2:]))
        if name is None:
            raise ValueError(unknown_name(flag, [f"--{one}" for one in known], "flag"))
        values = [value] if equals else []
        while not equals and position < len(argv) and not argv[position].startswith("--"):
            values.append(argv[position])
            position += 1
        arguments.append(f"--{name}={_joined(flag, values, known[name])}")
    return arguments


def _joined(flag: str, values: list[str], kind: object) -> str:
    if kind == list[str]:
        return values[0] if len(values) == 1 and values[0].startswith("[") else json.dumps(values)
    if not values and "bool" in str(kind):
        return "true"
    if len(values) != 1:
        raise ValueError(f"{flag} takes one value, got {len(values)}: {' '.join(values)}".rstrip(": "))
    return values[0]


def trailing_comment(lines: list[str], node: ast.AST) -> str:
    """What the comment behind a node says: the help of a setting or a flag."""
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()  # ast counts bytes
    return behind.partition("  # ")[2].strip()


def _comments(module: ModuleType) -> dict[str, str]:
    """The comment behind or above each constant, for --help."""
    lines = inspect.getsource(module).splitlines()
    comments = {}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.AnnAssign):
            behind = trailing_comment(lines, node)
            above = node.lineno - 2
            block = []
            while not behind and above >= 0 and lines[above].startswith("# ") and not lines[above].startswith("# ---"):
                block.insert(0, lines[above][2:])
                above -= 1
            comments[node.target.id] = (behind or " ".join(block)).replace("%", "%%")
    return comments
