"""What README and docs show runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import pytest
from typer.main import get_command

import napari_defects as nd
from napari_defects.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")


def test_the_pages_name_what_a_fresh_interpreter_has():
    named = {name for page in PAGES for name in re.findall(r"\bnd\.(\w+)", page.read_text(encoding="utf-8"))}
    assert named <= {*nd.__all__, "__version__"}, "another import may have bound it before"


def test_the_pages_name_verbs_and_options_that_there_are():
    verbs = get_command(app).commands
    lines = [
        (page.name, " ".join(line.split()))
        for page in [*PAGES, ROOT / "CHANGELOG.md"]
        for found in re.findall(
            r"`(napari-defects [^`]+)`|^    (napari-defects .+)$", page.read_text(encoding="utf-8"), re.M
        )
        for line in found
        if line
    ]
    assert len(lines) > 20
    for page, line in lines:
        verb, *words = line.split()[1:]
        assert verb in verbs, (page, line)
        known = {name for option in verbs[verb].params for name in (*option.opts, *option.secondary_opts)}
        used = {word.strip("[]") for word in words if re.match(r"\[?--?[a-z]", word)}
        assert used <= {*known, "--help"}, (page, line)


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "<page>", "exec"), {"__name__": "__main__"})


def test_tables_page_is_current():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    assert make_tables.PAGE.read_text(encoding="utf-8") == make_tables.page(), "run docs/make_tables.py"
