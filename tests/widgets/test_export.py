from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel
from PIL import Image

import napari_defects as nd
from napari_defects import figures
from napari_defects.figures.publication import publish
from napari_defects.saving import file_name
from napari_defects.widgets._export import ExportFigure
from napari_defects.widgets.count import Count


@pytest.fixture
def draw(wse2: tuple[nd.Micrograph, Any]) -> Any:
    micrograph = wse2[0]
    return lambda ax: figures.overview(ax, micrograph, micrograph.metadata["defects"])


@pytest.mark.parametrize("width_mm", [85.0, 120.0, 170.0])
def test_a_figure_is_as_wide_as_the_journal_wants(draw: Any, tmp_path: Path, width_mm: float) -> None:
    svg = publish(draw, tmp_path / "f.svg", width_mm=width_mm).read_text("utf-8")
    (points,) = re.findall(r'<svg [^>]*?width="([\d.]+)pt"', svg)
    assert float(points) / 72 * 25.4 == pytest.approx(width_mm, abs=0.01)
    assert "SeTe" in svg, "text stays text"
    pdf = publish(draw, tmp_path / "f.pdf", width_mm=width_mm).read_bytes()
    (right,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", pdf)
    assert float(right) / 72 * 25.4 == pytest.approx(width_mm, abs=0.01)
    png = Image.open(publish(draw, tmp_path / "f.png", width_mm=width_mm, dpi=300))
    assert png.width / 300 * 25.4 == pytest.approx(width_mm, abs=0.2)


def test_a_figure_is_refused_in_one_sentence(draw: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.pdf, \.svg, \.png, got 'f.bmp'"):
        publish(draw, tmp_path / "f.bmp")
    with pytest.raises(ValueError, match="journals print 85, 120 or 170"):
        publish(draw, tmp_path / "f.pdf", width_mm=8.5)


def test_the_button_writes_and_tells(draw: Any, tmp_path: Path, qtbot: Any, notifications: list[Any]) -> None:
    panel = Count(ViewerModel())
    qtbot.addWidget(panel)
    button = ExportFigure(panel, draw, lambda: "overview")
    assert [a.text().split(" mm")[0] for a in button.menu().actions()] == ["85", "120", "170"]
    button.export(85.0, tmp_path / "overview.pdf")
    assert (tmp_path / "overview.pdf").is_file()
    assert panel.status.text() == "✓ Wrote overview.pdf, 85 mm wide."
    (tmp_path / "file").write_text("")
    button.export(85.0, tmp_path / "file" / "overview.pdf")
    assert "cannot be written" in str(notifications[-1].message)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("strain · V_Se", "strain · V_Se"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a/b\\c:d\n", "a_b_c_d_"),
        ("..", "untitled"),
    ],
)
def test_names_of_layers_are_no_paths(words: str, name: str) -> None:
    assert file_name(words) == name
