"""Command lines of scripts that train by Hugging Face's Trainer: our dataclasses, then all of Trainer's own flags.

    @dataclass
    class DataArguments:
        \"\"\"data\"\"\"                                         a group of --help
        meta_path: str = ""  # JSON of the training data    --meta_path TEXT, with this comment

    later wins: the dataclasses of config.py < DEMO < --config FILE < command line

Importing Trainer takes seconds. Its flags are read from its source, so that --help, --help_all and a mistake are
answered at once.
"""

import ast
import dataclasses
import importlib.util
import inspect
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from common.cli.config_files import Setting, comment, file_values, trailing_comment
from common.cli.names import plain
from common.cli.outputs import refuse_overwriting
from common.cli.settings import check_values, make_parser, parse_words, print_help

RENAMED = {  # flags of older versions of Trainer, and of other projects
    "warmup_ratio": "warmup_steps",  # which is a share below 1
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy=group_by_length",
    "no_cuda": "use_cpu=true",
    "cpu": "use_cpu=true",
    "amp": "bf16=true",
}


def read_flags(
    groups: Sequence[type], argv: list[str], description: str = "", defaults: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """-> every field of `groups`, and those of Trainer's flags that are set. `defaults`: in place of the fields' own.

    Errors as in read_settings.
    """
    own = {name: setting for group in groups for name, setting in _fields(group).items()}
    settings = {**_trainer_fields(), **own}
    if {"-h", "--help", "--help_all"} & set(argv):
        if "--help_all" in argv:
            print_help({**own, **settings}, description, has_demo=False)
        else:
            print_help(own, description, has_demo=False)
            print("\n--help_all shows the other flags of Hugging Face's Trainer too; all of them work here.")
        sys.exit(0)
    parser = make_parser(settings, has_demo=False)
    words = parse_words(parser, _spell_new_names(argv, settings), settings, has_demo=False)
    file = words.pop("config", None)
    layers = [("config.py", {name: setting.value for name, setting in own.items()}), ("DEMO", defaults or {})]
    if file:
        layers.append((file, file_values(Path(file), list(settings))))
    values: dict[str, Any] = {}
    for source, layer in layers:
        values |= check_values(parser, layer, source, settings)
    refuse_overwriting(values | words)
    return values | words


def _fields(group: type) -> dict[str, Setting]:
    """The fields of a dataclass, with the comment behind or above each."""
    source, first = inspect.getsourcelines(group)
    lines, types = textwrap.dedent("".join(source)).splitlines(), typing.get_type_hints(group)
    defaults = {field.name: field for field in dataclasses.fields(group)}
    file, title = Path(inspect.getfile(group)).name, (group.__doc__ or "").strip().split("\n")[0].rstrip(".")
    settings = {}
    for node in typing.cast(ast.ClassDef, ast.parse("\n".join(lines)).body[0]).body:
        if isinstance(node, ast.Assign):  # an edit that Python would keep from the flags silently
            name = ast.unparse(node.targets[0])
            raise ValueError(f"{file}, line {first + node.lineno - 1}: {name} has no type; write {name}: TYPE = ...")
        if isinstance(node, ast.AnnAssign):
            name, field = ast.unparse(node.target), defaults[ast.unparse(node.target)]
            factory = field.default_factory
            value = field.default if factory is dataclasses.MISSING else factory()
            text = comment(lines, node.lineno, trailing_comment(lines, node))
            settings[name] = Setting(name, types[name], value, f"{file}, line {first + node.lineno - 1}", title, text)
    return settings


@cache
def _trainer_fields() -> dict[str, Setting]:
    """The fields of transformers.TrainingArguments."""
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin
    tree = ast.parse(Path(package.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments").body
    settings = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
            words = {word.arg: word.value for word in node.value.keywords}
            if "init" not in words:  # or else Trainer sets it
                name, value, metadata = ast.unparse(node.target), words.get("default"), words.get("metadata")
                text = str(_literal(_entry(metadata, "help")) or "")
                kind = bool | str if _entry(metadata, "const") else _type(node.annotation)  # such as --fsdp alone
                settings[name] = Setting(name, kind, _literal(value), "", "Hugging Face's Trainer", text)
    return settings


def _type(annotation: ast.expr) -> Any:
    """int | None as it says; a name of transformers, or a dictionary, is the text that TrainingArguments reads."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    kinds = {"bool": bool, "int": int, "float": float}
    if ast.unparse(annotation) in ("list[str]", "list[str] | None"):
        return list[str]
    kind = kinds[names.pop()] if len(names) == 1 and names <= kinds.keys() else bool | str if "bool" in names else str
    return kind | None if "None" in ast.unparse(annotation) else kind


def _entry(metadata: ast.expr | None, key: str) -> ast.expr | None:
    pairs = zip(metadata.keys, metadata.values) if isinstance(metadata, ast.Dict) else ()
    return next((value for name, value in pairs if isinstance(name, ast.Constant) and name.value == key), None)


def _literal(node: ast.expr | None) -> Any:
    """The value of a literal, or else its source."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)  # type: ignore[arg-type]


def _spell_new_names(argv: list[str], settings: Mapping[str, Setting]) -> list[str]:
    words = []
    for word in argv:
        written, equals, value = word.partition("=")
        name = plain(written)
        if word.startswith("--") and name in RENAMED and name not in settings:
            word = f"--{RENAMED[name]}" if "=" in RENAMED[name] else f"--{RENAMED[name]}{equals}{value}"
        words.append(word)
    return words
