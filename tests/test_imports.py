"""The house's walls: imports run one way, and files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "hrcam_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))
NETWORK = ["backbones", "decoders", "explain", "export.py", "geometry.py", "model.py", "pooling.py", "views.py"]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("room", NETWORK)
def test_network_code_knows_no_lightning(room: str) -> None:
    for path in [PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py"):
        assert not _roots(path) & {"lightning", "synth", "wandb", "jsonargparse"}, path
        ours = {name for name in _imports(path) if name.startswith("hrcam_lightning.")}
        later = ("task", "data", "callbacks", "cli", "metrics")
        assert not any(name.split(".")[1] in later for name in ours), path


def test_metrics_import_nothing_else_of_ours() -> None:
    for path in (PACKAGE / "metrics").rglob("*.py"):
        ours = {name for name in _imports(path) if name.startswith("hrcam_lightning")}
        assert all(name.startswith("hrcam_lightning.metrics") for name in ours), path


def test_only_the_phantom_module_imports_synth() -> None:
    assert {path.name for path in FILES if "synth" in _roots(path)} == {"phantoms.py"}


@pytest.mark.parametrize("library", ["monai", "timm", "safetensors", "pydicom"])
def test_slow_and_optional_libraries_stand_behind_one_file_and_are_imported_late(library: str) -> None:
    users = [path for path in FILES if library in _roots(path)]
    home = {"safetensors": "weights.py", "pydicom": "dicom.py"}
    assert [path.name for path in users] == [home.get(library, f"{library}.py")]
    for node in ast.parse(users[0].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert library not in ast.unparse(node).split(".")[0], ast.unparse(node)


def test_modules_form_no_circle() -> None:
    def name(path: Path) -> str:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    modules = {name(path): path for path in FILES if path != PACKAGE / "__init__.py"}
    needs = {module: _imports(path) & set(modules) - {module} for module, path in modules.items()}
    for module, found in needs.items():  # a package's own modules are what it is made of, not what it needs
        needs[module] = {other for other in found if not module.startswith(f"{other}.")}
    while needs:
        free = {module for module, found in needs.items() if not found & set(needs)}
        assert free, f"a circle among {sorted(needs)}"
        for module in free:
            del needs[module]


def test_files_are_short() -> None:
    assert {path.name: n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400} == {}
