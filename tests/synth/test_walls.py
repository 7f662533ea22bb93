from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "synth"
FILES = sorted(PACKAGE.rglob("*.py"))
EVERYWHERE = {"numpy", "scipy", "nibabel", "yaml", "synth"}
ALSO = {
    "cli.py": {"rich"},
    "tables.py": {"rich"},
    "preview.py": {"matplotlib"},
    "describe.py": {"matplotlib"},
    "cluster.py": {"distributed"},
}
STANDARD = set(__import__("sys").stdlib_module_names)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_synth_imports_nothing_but_what_it_is_allowed(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert roots - STANDARD <= EVERYWHERE | ALSO.get(path.name, set())


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def test_imports_run_one_way() -> None:
    graph = {module(path): {name for name in imported(path) if name.startswith("synth.")} for path in FILES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_files_stay_short() -> None:
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 400
