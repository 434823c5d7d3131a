from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import napari_defects

HEAVY = ("torch", "qtpy", "PyQt6", "napari", "magicgui", "matplotlib", "scipy", "pandas", "numba", "dask", "skimage")


def loaded_by(code):
    tell = f"{code}; import sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    return json.loads(subprocess.run([sys.executable, "-c", tell], check=True, capture_output=True, text=True).stdout)


def test_the_package_itself_loads_nothing():
    assert loaded_by("import napari_defects") == []


def test_the_command_line_loads_nothing_heavy():
    assert loaded_by("import napari_defects.cli") == []


def test_reading_and_tables_need_no_torch_qt_or_matplotlib():
    loaded = loaded_by("import napari_defects as nd; nd.read_micrograph; nd.write_table; nd.count; nd.get_crystal")
    assert not {"torch", "qtpy", "PyQt6", "napari", "matplotlib", "dask"} & set(loaded)


def test_the_library_knows_no_qt():
    loaded = loaded_by("import napari_defects as nd; nd.analyze; nd.simulate; nd.track; nd.fit_eshelby")
    assert not {"qtpy", "PyQt6", "napari", "magicgui", "matplotlib"} & set(loaded)


def test_every_public_name_is_there():
    missing = [name for name in napari_defects.__all__ if not hasattr(napari_defects, name)]
    assert not missing


def test_no_public_function_shares_its_name_with_a_module():
    paths = Path(napari_defects.__file__).parent.iterdir()
    modules = {path.stem for path in paths if path.suffix == ".py" or path.is_dir()}
    functions = {name for name in napari_defects.__all__ if callable(getattr(napari_defects, name))}
    assert not modules & functions


def test_imports_run_downwards():
    linter, root = shutil.which("lint-imports", path=str(Path(sys.executable).parent)), Path(__file__).parents[1]
    if linter is None or not (root / "pyproject.toml").is_file():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([linter, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
