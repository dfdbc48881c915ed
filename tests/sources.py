"""Python sources as syntax trees, for the tests of the code's structure and of the pages that name tests."""

import ast
import gc
from pathlib import Path


def parse(path: Path) -> ast.Module:
    """Parse a file; no garbage collection meanwhile, in which another parse fails this one (python/cpython#106905)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    finally:
        if was_enabled:
            gc.enable()


def functions(path: Path) -> set[str]:
    """The names of all functions in a file."""
    return {node.name for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
