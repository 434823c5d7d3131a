"""Maps are kept, found again, and make room; nothing that is wrong with their files ends a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_defects as nd
from napari_defects.widgets import _cache

IMAGE = nd.Micrograph(np.random.default_rng(0).poisson(5, (32, 32)).astype(np.float32), 0.02)
WEIGHTS = {"w": torch.arange(4.0)}


class Network:
    """Makes maps and counts how often."""

    calls = 0

    def __call__(self) -> nd.Maps:
        self.calls += 1
        data = np.full((2, 32, 32), 0.5, np.float32)
        return nd.Maps(data, ("background", "W"), (0.02, 0.03), spread=data[0])


def test_the_same_is_not_made_twice() -> None:
    network = Network()
    first = _cache.remembered(IMAGE, WEIGHTS, {"views": 1}, network)
    again = _cache.remembered(IMAGE, WEIGHTS, {"views": 1}, network)
    assert network.calls == 1
    np.testing.assert_array_equal(again.data, first.data)
    np.testing.assert_array_equal(again.spread, first.spread)
    assert (again.classes, again.pixel_size_nm) == (first.classes, first.pixel_size_nm)


@pytest.mark.parametrize(
    ("image", "weights", "how"),
    [
        (nd.Micrograph(IMAGE.data + 1, 0.02), WEIGHTS, {"views": 1}),
        (nd.Micrograph(IMAGE.data, 0.021), WEIGHTS, {"views": 1}),
        (IMAGE, {"w": torch.arange(4.0) + 1}, {"views": 1}),
        (IMAGE, WEIGHTS, {"views": 2}),
    ],
)
def test_anything_else_is(image: nd.Micrograph, weights: Any, how: Any) -> None:
    network = Network()
    _cache.remembered(IMAGE, WEIGHTS, {"views": 1}, network)
    _cache.remembered(image, weights, how, network)
    assert network.calls == 2


def test_a_damaged_file_and_an_unwritable_folder_do_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = Network()
    _cache.remembered(IMAGE, WEIGHTS, {}, network)
    (file,) = _cache.folder().glob("*")
    file.write_bytes(b"not maps")
    _cache.remembered(IMAGE, WEIGHTS, {}, network)
    assert network.calls == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_cache, "folder", lambda: tmp_path / "file" / "maps")
    assert _cache.remembered(IMAGE, WEIGHTS, {}, network).classes == ("background", "W")


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        image = nd.Micrograph(IMAGE.data + number, 0.02)
        _cache.remembered(image, WEIGHTS, {}, Network())
        for file in _cache.folder().glob("*"):
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 100))
    size = max(f.stat().st_size for f in _cache.folder().glob("*"))
    _cache._make_room(_cache.folder(), 2 * size)
    assert len(list(_cache.folder().glob("*"))) == 2
    monkeypatch.setattr(_cache, "setting", lambda name, default: 0)
    network = Network()
    _cache.remembered(nd.Micrograph(IMAGE.data + 3, 0.02), WEIGHTS, {}, network)
    assert network.calls == 1, "0 keeps none, and asks for none"
