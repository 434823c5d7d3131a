"""The second engine: the same image as the fast one, by other means."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.simulation.multislice import Field

CLEAN: dict[str, Any] = {"detector": nd.Detector(read_noise_e=0), "shot_noise": False}


def test_a_field_is_blurred_and_sampled() -> None:
    y, x = np.mgrid[:40, :50] * 0.03

    def wave(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.asarray(2 + np.cos(2 * np.pi * (3 * y + 5 * x)))

    origin = np.array([0.1, -0.2])
    field = Field(wave(y, x).astype(np.float32), origin, 0.03)
    places = np.random.default_rng(0).uniform(0.35, 0.8, (50, 2))
    sharp = field.blurred(nd.Microscope(source_fwhm_nm=0)).at(origin + places)
    np.testing.assert_allclose(sharp, wave(*places.T), atol=0.03)
    blurred = field.blurred(nd.Microscope(source_fwhm_nm=0.08)).at(origin + places)
    damped = np.exp(-2 * (np.pi * 0.08 / 2.3548) ** 2 * 34)
    np.testing.assert_allclose(blurred - 2, damped * (wave(*places.T) - 2), atol=0.03)


def test_both_engines_make_the_same_image() -> None:
    pytest.importorskip("abtem")
    microscope = nd.Microscope(60, 31, 86, 200, aberrations=nd.Aberrations(C12_nm=1.0, phi12_deg=30, C21_nm=80))
    scan = nd.Scan(rotation_deg=20, drift_pm_per_line=(0.8, -0.9), jitter_pm=8, flyback_pm=30)
    done: list[tuple[int, int]] = []
    fast, slow = (
        nd.simulate(
            "graphene", field_of_view_nm=0.7, pixel_size_nm=0.02, at=[("Si1C3", 0.3, 0.4)], microscope=microscope,
            scan=scan, engine=engine, frozen_phonons=0, progress=lambda *p: done.append(p), seed=3, **CLEAN,
        )
        for engine in ("fast", "multislice")
    )  # fmt: skip
    assert done[-1][0] == done[-1][1] == len(done)
    assert fast[1].equals(slow[1])
    a, b = fast[0].frame(), slow[0].frame()
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.995
    assert b.mean() == pytest.approx(a.mean(), rel=0.15)


def test_without_abtem_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "abtem", None)
    with pytest.raises(ValueError, match=r'pip install "napari-defects\[multislice\]"'):
        nd.simulate("graphene", field_of_view_nm=1, engine="multislice")


@pytest.mark.parametrize("options", [{"engine": "slow"}, {"engine": "multislice", "frozen_phonons": -1}])
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        nd.simulate("graphene", field_of_view_nm=1, **options)
