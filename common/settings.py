"""Settings: what a user edits in a config file, and the flag of the same name that overrides it.

    config.py  BATCH_SIZE: int = 32  # images per step    ->   --batch_size 32   in `--help`, with that comment
    later wins: config.py < config.json beside it, or --config FILE < command line

The types on the constants are the rules: jsonargparse checks each value against them, whatever its source.
"""

import ast
import difflib
import inspect
import json
import sys
from argparse import ArgumentError, Namespace
from pathlib import Path
from types import ModuleType

import jsonargparse
import yaml


def read_settings(module: ModuleType, argv: list[str], description: str = "") -> Namespace:
    """Constants of `module`, overridden by a file, overridden by `argv` -> Namespace with lower-case names.

    `--demo` puts the module's DEMO values in place of the constants; flags still win. ValueError names an unknown
    flag or an unknown name in a file with the nearest real one, or a value of the wrong type.
    """
    argv = list(argv)
    demo = "--demo" in argv
    if demo:
        argv.remove("--demo")
    beside = Path(module.__file__).with_name("config.json")
    file = _take_config(argv) or (beside if beside.is_file() and not demo else None)
    parser = jsonargparse.ArgumentParser(
        usage=f"{Path(sys.argv[0]).name} [--name value ...]" + (" [--demo]" if hasattr(module, "DEMO") else ""),
        description=description.strip().split("\n\n")[0],
        exit_on_error=False,
        default_env=False,
    )
    if hasattr(module, "DEMO"):  # taken off before this parser; here for --help
        parser.add_argument("--demo", action="store_true", help="try it out: the DEMO values of config.py")
    parser.add_argument("--config", help="JSON or YAML file of settings, in sections or flat; default: config.json")
    kinds = inspect.get_annotations(module)
    comments = _comments(module)
    for name, kind in kinds.items():
        default = module.DEMO.get(name, getattr(module, name)) if demo else getattr(module, name)
        parser.add_argument(f"--{name.lower()}", type=kind, default=default, help=comments.get(name, ""))
    known = {name.lower(): kind for name, kind in kinds.items()}
    written = _file_values(file, known) if file else []
    try:
        settings = parser.parse_args(written + _explicit_values(argv, known))
    except ArgumentError as error:
        raise ValueError(error.message or str(error)) from None
    return Namespace(demo=demo, **{name: settings[name] for name in known})


def unknown_name(name: str, known: list[str], what: str) -> str:
    """One line for a name that does not exist, with the nearest that do."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"unknown {what} '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else "")


def _take_config(argv: list[str]) -> Path | None:
    """Take `--config FILE` or `--config=FILE` off the list."""
    for position, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] or (argv[position + 1] if position + 1 < len(argv) else "")
            if not value:
                raise ValueError("--config needs a file")
            del argv[position : position + (1 if "=" in word else 2)]
            if not Path(value).is_file():
                raise FileNotFoundError(f"{value}: no such file (--config)")
            return Path(value)
    return None


def _file_values(file: Path, known: dict[str, object]) -> list[str]:
    """Settings of a JSON or YAML file as arguments. A section's `key` means `key`, or `section_key`."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as JSON or YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected names and values, found {type(content).__name__}")
    values: dict[str, object] = {}
    for section, entry in content.items():
        for key, value in entry.items() if isinstance(entry, dict) else ((None, entry),):
            names = [section] if key is None else [key, f"{section}_{key}"]
            name = next((str(one).lower() for one in names if str(one).lower() in known), None)
            if name is None:
                raise ValueError(f"{file}: " + unknown_name(str(names[-1]), list(known), "setting"))
            if name in values:
                raise ValueError(f"{file}: '{name}' is set twice")
            values[name] = value
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def _explicit_values(argv: list[str], known: dict[str, object]) -> list[str]:
    """`--flag` of a bool -> `--flag=true`; the words after a list's flag -> one JSON list; unknown flags refused."""
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
        name = flag[2:].replace("-", "_")
        if name not in known:
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


def _comments(module: ModuleType) -> dict[str, str]:
    """The comment behind or above each constant, for --help."""
    lines = inspect.getsource(module).splitlines()
    comments = {}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.AnnAssign):
            behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
            above = node.lineno - 2
            block = []
            while not behind and above >= 0 and lines[above].startswith("# ") and not lines[above].startswith("# ---"):
                block.insert(0, lines[above][2:])
                above -= 1
            comments[node.target.id] = (behind.lstrip("# ") or " ".join(block)).replace("%", "%%")
    return comments
