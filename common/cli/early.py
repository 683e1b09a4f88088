"""Answers to a command line before the script imports torch: its help, and mistakes in it.

answer_early(__file__)          in a script with a @tool, whose parameters are read from its source
answer_early(__file__, config)  in a script with read_settings(config, argv)

It stands under `if __name__ == "__main__":` above the imports that take seconds; main() parses the command line again.
"""

import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from common.cli.errors import exit_at_signals, run_script
from common.cli.settings import read_settings
from common.cli.tool_parser import parse_tool


def answer_early(script: str, config: ModuleType | None = None) -> None:
    """End the script with its help or an error of one line, or return. script: its __file__."""

    def parse(argv: list[str]) -> None:
        function = _read_tool(Path(script))
        if function:
            argv = parse_tool(function, argv)[1]
        if config:
            read_settings(config, argv, sys.modules["__main__"].__doc__ or "", quiet=True)

    run_script(parse)
    exit_at_signals()


def _read_tool(script: Path) -> Callable[..., Any] | None:
    """The script's function that is marked @tool; of the rest, only what its parameters name is executed."""
    body = ast.parse(script.read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    function = next((node for node in functions if "tool" in map(ast.unparse, node.decorator_list)), None)
    if function is None:
        return None
    function.decorator_list, function.returns = [], None
    needed: list[ast.stmt] = [function]
    names = _names([function.args])
    for node in reversed(body[: body.index(function)]):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in names]
            needed[:0] = [node] if node.names else []
        elif _defines(node) & names:
            if isinstance(node, ast.ClassDef):  # a dataclass: its fields
                node.body = [field for field in node.body if not isinstance(field, ast.FunctionDef)]
            names |= _names([node])
            needed.insert(0, node)
    space = {"__name__": "__main__"}
    exec(compile(ast.Module(needed, []), str(script), "exec"), space)
    return space[function.name]  # type: ignore[return-value]


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that are read somewhere in `nodes`."""
    return {inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _defines(node: ast.stmt) -> set[str]:
    """Names that a statement at the top level of a module defines, other than by an import."""
    if isinstance(node, ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return _names(targets)
