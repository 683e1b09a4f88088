"""Settings in config files: constants of a config.py, sections of YAML, names and values of JSON or YAML."""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, cast

import yaml

from common.cli.errors import one_line
from common.cli.names import find_name, plain, unknown_name


class Setting(NamedTuple):
    name: str  # as its file writes it
    type: Any
    value: object  # unless a file or a flag says otherwise
    place: str  # file and line of the value
    section: str = ""  # title of the section that the value stands in
    help: str = ""


class _Loader(yaml.SafeLoader):
    """YAML whose 1e-4 is a number, as in JSON and in Python, and in which no key of a mapping comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"'{twice}' is set twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def constants(module: ModuleType) -> dict[str, Setting]:
    """The constants of a module that its TYPES names, in the order of its lines, with the comment behind or above each.

    An annotation declares a constant too, unless it says Final. ValueError names what is neither, or has no value.
    """
    file, source = Path(inspect.getfile(module)), inspect.getsource(module)
    lines, types = source.splitlines(), {**module.TYPES, **inspect.get_annotations(module)}
    settings: dict[str, Setting] = {}
    nodes = [node for node in ast.parse(source).body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    for node in nodes:
        name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
        place, value = f"{file.name}, line {node.lineno}", getattr(module, name, None)
        if name in types and types[name] is not Final:
            text = comment(lines, node.lineno, trailing_comment(lines, node))
            settings[name.lower()] = Setting(name, types[name], value, place, _section(lines, node.lineno), text)
        elif name not in types and _looks_like_setting(name, value, module.TYPES):
            raise ValueError(f"{place}: {unknown_name(name, list(module.TYPES), 'setting')}")
    if missing := next((name for name in module.TYPES if not hasattr(module, name)), None):
        raise ValueError(f"{file.name}: no value for {missing}")
    for name in module.TYPES:  # given by `A = B = 1`, `A, B = 1, 2` or in an if
        settings.setdefault(name.lower(), Setting(name, types[name], getattr(module, name), file.name))
    return settings


def _looks_like_setting(name: str, value: object, types: dict[str, Any]) -> bool:
    """Whether a constant without a type is meant as a setting; dictionaries are not."""
    return name.isidentifier() and not isinstance(value, dict) and (name.isupper() or plain(name) in map(plain, types))


def _section(lines: Sequence[str], line: int) -> str:
    """The title of the last `# --- title ---` above a line number."""
    titles = (re.match(r"# --- (.+?) -+$", text) for text in reversed(lines[: line - 1]))
    return next((title[1] for title in titles if title), "")


def sections(types: dict[str, Any], file: Path) -> dict[str, Setting]:
    """Types in sections, the YAML file with a value for each -> settings with the file's comments."""
    known = {".".join(path): kind for path, kind in _entries(types)}
    values, lines = file_values(file, list(known)), file.read_text(encoding="utf-8").splitlines()
    if missing := [flag for flag in known if flag not in values]:
        raise ValueError(f"{file.name}: no value for {', '.join(missing)}; this file holds every setting")

    def nodes(node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
        """Setting, line number, comment behind it."""
        for key, value in node.value:
            line, end = key.start_mark.line, value.end_mark.column
            if isinstance(value, yaml.MappingNode):
                yield from nodes(value, (*path, key.value))
            else:
                yield ".".join((*path, key.value)), line + 1, lines[line][end:].partition("# ")[2]

    settings = {}
    for flag, line, behind in nodes(cast(yaml.MappingNode, yaml.compose("\n".join(lines))), ()):
        section, place = flag.rpartition(".")[0], f"{file.name}, line {line}"
        settings[flag] = Setting(flag, known[flag], values[flag], place, section, comment(lines, line, behind))
    return settings


def file_values(file: Path, known: list[str]) -> dict[str, object]:
    """Settings of a JSON or YAML file by flag: `key` in `section` is section.key, section_key or key."""
    values: dict[str, object] = {}
    has_sections = any("." in name for name in known)
    for path, value in _entries(read_mapping(file)):
        names = [".".join(path)] if has_sections else ["_".join(path[at:]) for at in reversed(range(len(path)))]
        name = next(filter(None, (find_name(name, known) for name in names)), None)
        if name is None:
            raise ValueError(f"{file}: " + unknown_name(names[-1], known, "setting"))
        if name in values:
            raise ValueError(f"{file}: '{name}' is set twice")
        values[name] = value
    return values


def read_mapping(file: Path) -> dict[str, Any]:
    """The names and values of a JSON or YAML file."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file (--config)")
    try:
        content = yaml.load(file.read_bytes(), _Loader)  # JSON is YAML; bytes are UTF-8, or UTF-16 by their mark
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:  # !!bool x
        raise ValueError(f"{file}: cannot be read as JSON or YAML ({one_line(error)})") from None
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


def trailing_comment(lines: Sequence[str], node: Any) -> str:
    """What the comment behind a node of ast says: the help of a setting or a flag."""
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()  # ast counts bytes
    return behind.partition("  # ")[2].strip()


def comment(lines: Sequence[str], line: int, behind: str) -> str:
    """The comment behind the setting of line number `line`, or else the block of comments above it."""
    above = (text.strip() for text in reversed(lines[: line - 1]))
    block = list(takewhile(lambda text: text.startswith("# ") and not text.startswith("# ---"), above))
    return behind or " ".join(text[2:] for text in reversed(block))
