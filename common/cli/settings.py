"""Settings: values that a user edits in a config file, each with a flag of the same name that overrides it.

    config.py  BATCH_SIZE = 32  # images per step    ->   --batch_size 32   in `--help`, with that comment
    later wins: config.py < config.json in its folder, or --config FILE < command line

TYPES of the module names its settings and their types, so that an edited line needs none. Where TYPES has sections,
the values are in configs/default.yaml: with {"model": {"lora": {"rank": int}}} the file says
`model: {lora: {rank: 8}}`, with a comment as help, and the flag is --model.lora.rank.

    later wins: configs/default.yaml < --config NAME (configs/NAME.yaml) or FILE < command line

jsonargparse checks each value against its type, whatever its source; an error names file and line, or the flag. Where
files set a value twice, or the command line replaces that of a file, one line on stderr says which won. A flag may also
be called as in timm, open_clip or transformers (common/cli/names.py).
"""

import argparse
import inspect
import json
import os
import re
import sys
from argparse import ArgumentError, Namespace
from collections.abc import Mapping
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonargparse

from common.cli.config_files import Setting, constants, file_values, sections
from common.cli.errors import CommandLineError
from common.cli.names import SWITCHES, find_name, find_switch, plain, report_synonym, unknown_name
from common.cli.outputs import refuse_overwriting
from common.cli.type_names import describe_type, is_optional, shown

CONFIG_HELP = "JSON or YAML file of settings, in sections or flat"


def read_settings(
    module: ModuleType,
    argv: list[str],
    description: str = "",
    defaults: dict[str, object] | None = None,
    quiet: bool = False,
) -> Namespace:
    """Settings of `module`, overridden by files, overridden by `argv` -> Namespace with lower-case names, _ for dots.

    `--demo` puts the module's DEMO, or configs/demo.yaml, over its values. `defaults`: values of an earlier run by
    those names, in place of the module's. `quiet`: do not say which of two places won. ValueError names an unknown
    name in a file with the nearest real one, or a value of the wrong type; CommandLineError the same of a flag.
    """
    folder = Path(inspect.getfile(module)).parent
    by_name, neighbour = folder / "configs", folder / "config.json"
    sectioned = any(isinstance(kind, dict) for kind in module.TYPES.values())
    settings = sections(module.TYPES, by_name / "default.yaml") if sectioned else constants(module)
    has_demo = hasattr(module, "DEMO") or (by_name / "demo.yaml").is_file()
    if {"-h", "--help"} & set(argv):
        print_help(settings, description, has_demo)
        sys.exit(0)
    parser = make_parser(settings, has_demo)
    words = parse_words(parser, argv, settings, has_demo)
    demo, name = words.pop("demo", False), words.pop("config", None)

    base = {flag: (defaults or {}).get(plain(flag), setting.value) for flag, setting in settings.items()}
    layers = [("default.yaml" if sectioned else "config.py", base)]
    if demo and sectioned:
        layers.append(("demo.yaml", file_values(by_name / "demo.yaml", list(settings))))
    elif demo:
        layers.append(("DEMO", {_known(key, settings): value for key, value in module.DEMO.items()}))
    file = _find_config(by_name, name) if name else neighbour
    if name or (not sectioned and neighbour.is_file() and not demo and defaults is None):
        layers.append((file.name, file_values(file, list(settings))))
    values: dict[str, object] = {}
    for source, layer in layers:
        values |= check_values(parser, layer, source, settings)
    values |= words
    refuse_overwriting(values)
    if not quiet:
        _report_overrides([*layers, ("the command line", words)])
    plain_values = json.dumps({plain(flag): value for flag, value in values.items()})  # PositiveInt becomes int
    return Namespace(demo=bool(demo or (defaults or {}).get("demo")), **json.loads(plain_values))


def make_parser(settings: Mapping[str, Setting], has_demo: bool) -> jsonargparse.ArgumentParser:
    """A parser of values alone: names are looked up, and the help is printed, elsewhere."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False, default_env=False, add_help=False)
    if has_demo:
        parser.add_argument("--demo", action="store_true")
    parser.add_argument("--config")
    for flag, setting in settings.items():
        alone: Any = [] if setting.type == list[str] else True if "bool" in str(setting.type) else None  # no value
        arity: dict[str, Any] = {} if alone is None else {"nargs": "?", "const": alone}
        parser.add_argument(f"--{flag}", type=setting.type, **arity)
    return parser


def parse_words(
    parser: jsonargparse.ArgumentParser, argv: list[str], settings: Mapping[str, Setting], has_demo: bool
) -> dict[str, Any]:
    try:
        return vars(parser.parse_args(_spell_out(argv, settings, has_demo), defaults=False).as_flat())
    except ArgumentError as error:
        flag, reason = _reason(error, settings)
        raise CommandLineError(f"--{flag}: {reason}" if flag else reason) from None


def _spell_out(argv: list[str], settings: Mapping[str, Setting], has_demo: bool) -> list[str]:
    """A command line as the parser reads it, which appends to a list by +=.

    A flag may have another name (common/cli/names.py); the words behind the flag of a list, or a word of JSON, are its
    elements; a folder behind --resume is the one to resume.
    """
    names = ["config", *(["demo"] if has_demo else []), *settings]
    resume, folder = (find_name(name, settings) for name in ("resume", "checkpoint_dir"))
    if resume and settings[resume].type is not bool:  # Trainer's takes a checkpoint's folder itself
        folder = None
    words, list_flag = [], ""
    for word in argv:
        written, equals, value = word.partition("=")
        name = find_name(written, names) if word.startswith("-") else None
        switch = find_switch(written, settings) if word.startswith("--") and not name else None
        if switch:
            name, value = switch
            if plain(written) in SWITCHES:
                report_synonym(written, f"{name}={value}")
            words += [f"--{name}", f"--{name}+={value}"] if settings[name].type == list[str] else [f"--{name}={value}"]
            list_flag = ""
        elif name and not (list_flag and not word.startswith("--")):
            report_synonym(written, name)
            list_flag = f"--{name}" if name in settings and settings[name].type == list[str] else ""
            words += [f"--{name}", f"--{name}+={value}"] if list_flag and equals else [f"--{name}{equals}{value}"]
            if equals and name == resume:
                words[-1:] = [f"--{name}", *_resume_folder(value, folder)]
        elif word.startswith("--"):
            raise CommandLineError(unknown_name(written, [f"--{name}" for name in settings], "flag"))
        elif words and words[-1] == f"--{resume}":
            words += _resume_folder(word, folder)
        else:
            words.append(f"{list_flag}+={word}" if list_flag else word)
    return words


def _resume_folder(word: str, folder: str | None) -> list[str]:
    """What stands behind --resume, here and in other projects: true, false, latest, a run's folder, or its last/.

    folder: the setting of a run's folder; None where the word is passed on.
    """
    if word.lower() in ("true", "false"):
        return [word]
    if word in ("latest", "auto"):
        return ["true"]
    if folder is None:
        return [word]
    path = Path(word)
    if not path.is_dir():
        raise CommandLineError(f"--resume {word}: no such folder; a run is resumed from --{folder}, from last/ in it")
    return ["true", f"--{folder}={path.parent if path.name == 'last' else path}"]


def check_values(
    parser: jsonargparse.ArgumentParser, values: Mapping[str, object], source: str, settings: Mapping[str, Setting]
) -> dict[str, object]:
    """Values of one source, as their types are written: 1 for a float becomes 1.0."""
    given = {flag: os.fspath(value) if isinstance(value, os.PathLike) else value for flag, value in values.items()}
    try:
        for flag, value in given.items():
            if value is None and not is_optional(settings[flag].type):
                raise ArgumentError(None, f'Parser key "{flag}": Got value: None')
        return vars(parser.parse_object(given, defaults=False).as_flat())
    except ArgumentError as error:
        flag, reason = _reason(error, settings)
        if values[flag] is settings[flag].value:
            raise ValueError(f"{settings[flag].place}: {settings[flag].name}: {reason}") from None
        raise ValueError(f"{source}: {flag}: {reason}") from None


def _reason(error: ArgumentError, settings: Mapping[str, Setting]) -> tuple[str, str]:
    """jsonargparse's reason for refusing a value -> the flag, and the value with what was expected."""
    message = " ".join((error.message or str(error)).split())
    key = re.match(r'Parser key "(.+?)"', message)
    if key and key[1] in settings:
        value = re.search(
            r"(?:Got value|Given value|Not of type \w+): (.*?)( does not conform.*| not an? .*)?$", message
        )
        given = value[1].rpartition(": ")[2].strip("'") if value else message  # int() and float() have words of theirs
        return key[1], f"'{given}', expected {describe_type(settings[key[1]].type)}"
    stray, data = re.match(r"unrecognized arguments: (\S+)", message), find_name("data_dir", settings)
    if stray:
        hint = f"did you mean --{data} {stray[1]}?" if data and Path(stray[1]).exists() else "settings are --name value"
        return "", f"'{stray[1]}' has no flag; {hint}"
    return "", message


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


def _known(key: str, settings: Mapping[str, Setting]) -> str:
    if key.lower() not in settings:
        raise ValueError(f"config.py: DEMO: {unknown_name(key, [name.upper() for name in settings], 'setting')}")
    return key.lower()


def _find_config(by_name: Path, name: str) -> Path:
    """NAME -> configs/NAME.yaml, or the file of that name."""
    for file in (by_name / f"{name}.yaml", Path(name)):
        if file.is_file():
            return file
    names = ", ".join(sorted(path.stem for path in by_name.glob("*.yaml")))
    raise FileNotFoundError(f"{name}: no such file{f', nor one of {names}' if names else ''} (--config)")


def print_help(settings: Mapping[str, Setting], description: str, has_demo: bool) -> None:
    """Every setting with type, comment and value, in the sections of the file that holds it."""
    parser = argparse.ArgumentParser(
        usage=f"{Path(sys.argv[0]).name} [--name value ...]" + (" [--demo]" if has_demo else ""),
        description=description.strip().split("\n\n")[0],
    )
    if has_demo:
        parser.add_argument("--demo", action="store_true", help="a small run with sample data")
    parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    for title, flags in groupby(settings, key=lambda flag: settings[flag].section):
        group = parser.add_argument_group(title)
        for flag in flags:
            setting = settings[flag]
            text = f"{setting.help} [{shown(setting.value)}]".removesuffix("[]").strip().replace("%", "%%")
            group.add_argument(f"--{flag}", metavar=describe_type(setting.type), help=text)
    parser.print_help()
