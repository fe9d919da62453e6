"""Imports go one way (see the tree in README.md): a module may import its own package and those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pygolf

# Each row may import the rows above it; packages of one row never import each other.
ROWS = [
    ["_core", "_ops"],
    ["errors"],
    ["files", "live", "watchdog"],
    ["config", "ops"],
    ["config_file", "presets", "tensors", "progress", "runtime"],
    ["data", "model"],
    ["train", "quant", "score"],
    ["report"],
    ["journal"],
    ["pipeline", "standalone"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}
PACKAGE = Path(pygolf.__file__).parent


def imports(path: Path) -> set[str]:
    """Top-level parts of pygolf that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            package = [f"{node.module}.{a.name}" for a in node.names] if node.module == "pygolf" else []
            names = package or [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("pygolf.")}
    return found - {"__version__"}


def test_imports_go_one_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for other in imports(path) - {part}:
            assert LEVEL[other] < LEVEL[part], f"{path} imports pygolf.{other}, which is not below {part}"


def test_every_part_has_a_row() -> None:
    parts = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(LEVEL)


def test_only_ops_imports_the_operator_library() -> None:
    users = {p.name for p in PACKAGE.rglob("*.py") if "_ops" in imports(p)}
    assert users == {"ops.py"}
