"""fine_tune(): to the twins of an image, with labelled crops among them."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cli import app
from napari_defects.learning import tuning
from napari_defects.learning.annotations import crops, mask_labels, mixed
from napari_defects.learning.tuning import compared, conditions_like, drawn_species, fine_tune
from napari_defects.networks import StopTraining, Training, train
from napari_defects.simulation import Conditions, training_pairs

CLASSES = ("background", "W", "Se2", "V_Se")


@pytest.fixture(scope="module")
def image() -> nd.Micrograph:
    return nd.simulate(
        "WSe2", field_of_view_nm=5.0, pixel_size_nm=0.025, defects={"V_Se": 10}, dose_e_per_A2=3e4,
        microscope=nd.Microscope(source_fwhm_nm=0.12), seed=1,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def twin(image: nd.Micrograph) -> nd.Twin:
    return nd.match(image, "WSe2")


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A network of a few weights and steps."""
    conditions = Conditions(species=("V_Se",), pixel_size_nm=(0.024, 0.026), dose_e_per_A2=(5e4, 8e4))
    options = Training(
        crystal="WSe2", pixel_size_nm=0.025, steps=20, batch=2, crop_px=64, channels=4, levels=2, held_back=2,
        validate_every=20, average=0.9, images=8, learning_rate=1e-2,
    )  # fmt: skip
    return train(training_pairs("WSe2", n=8, shape=(96, 96), conditions=conditions), classes=CLASSES, options=options)


@pytest.fixture(autouse=True)
def small(monkeypatch: Any, twin: nd.Twin) -> None:
    """Small twins and few of them; the image is matched once."""
    monkeypatch.setattr(tuning, "SHAPE_PX", (96, 96))
    monkeypatch.setattr(tuning, "_HELD_BACK", 3)
    monkeypatch.setattr(tuning, "match", lambda *args, **keywords: twin)


def test_conditions_lie_closely_around_the_image(twin: nd.Twin) -> None:
    conditions, usual = conditions_like(twin, CLASSES, {"V_Se": ("V_Se",)}), Conditions()
    assert conditions.species == ("V_Se",)
    assert conditions.foreign == 0
    low, high = conditions.dose_e_per_A2
    assert low < 3e4 < high
    assert high / low < 2
    low, high = conditions.source_fwhm_nm
    assert low < 0.12 < high
    assert conditions.pixel_size_nm[1] / conditions.pixel_size_nm[0] < 1.1
    assert conditions.contamination < usual.contamination
    generic = (*CLASSES, "darker_W", "brighter_W", "darker_Se", "brighter_Se")
    assert conditions_like(twin, generic).foreign > 0


def test_classes_are_drawn_as_themselves_unless_told_otherwise() -> None:
    drawn = drawn_species((*CLASSES, "darker_W", "Te_Mo"), nd.WSE2, {"Ti_W": ("As_W",)})
    assert drawn == {"V_Se": ("V_Se",), "Ti_W": ("As_W",)}


def test_before_and_after_are_on_the_card(image: nd.Micrograph, tiny: Any, tmp_path: Any) -> None:
    seen: list[int] = []
    model = fine_tune(
        image, tiny, minutes=5, steps=12, workers=0, checkpoint=tmp_path / "state",
        progress=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert model.classes == tiny.classes
    assert model.card["steps"] == 12
    assert seen == sorted(seen)
    assert seen[-1] == 1000
    (rows,) = model.card["tests"].values()
    assert {row["class"] for row in rows} == {"defects", "W", "Se2", "V_Se"}
    assert all(
        0 <= row[f"{key} {when}"] <= 1 for row in rows for key in ("f1", "recall") for when in ("before", "after")
    )
    assert "fine-tuned" in model.card["notes"][0]
    assert (tmp_path / "state").is_file()


def test_a_stop_keeps_the_best(image: nd.Micrograph, tiny: Any) -> None:
    def stop(done: int, total: int) -> None:
        raise StopTraining

    assert fine_tune(image, tiny, minutes=5, steps=50, workers=0, progress=stop).card["steps"] == 1


def test_the_clock_ends_it(image: nd.Micrograph, tiny: Any) -> None:
    assert fine_tune(image, tiny, minutes=0.001, workers=0).card["steps"] == 1


def test_own_crops_bring_their_classes(image: nd.Micrograph, tiny: Any) -> None:
    labels = pd.DataFrame({"y_nm": [1.0, 2.0, 4.0], "x_nm": [1.0, 2.0, 4.0], "species": ["W", "Se2", "Mo_W"]})
    model = fine_tune(image, tiny, minutes=5, steps=4, workers=0, pairs=crops(image, labels, side_nm=2.5), share=0.5)
    assert model.classes == (*CLASSES, "Mo_W")
    assert "labelled crops" in model.card["notes"][0]


def test_a_perfect_model_is_compared_as_such(tiny: Any) -> None:
    pairs = list(training_pairs("WSe2", n=2, shape=(96, 96), conditions=Conditions(species=("V_Se",))))
    rows = compared({"one": tiny, "other": tiny}, pairs, nd.WSE2)
    assert all(row["f1 one"] == row["f1 other"] for row in rows)


def test_crops_hold_every_label_once_where_it_is(image: nd.Micrograph) -> None:
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.uniform(0, 4.97, (200, 2)), columns=["y_nm", "x_nm"]).assign(species="W")
    pairs = crops(image, labels, side_nm=2.5)
    assert len(pairs) == 4
    assert sum(len(table) for _, table in pairs) == 200
    spot = labels.iloc[[0]]
    ((micrograph, table),) = crops(image, spot, side_nm=2.5)
    y, x = np.rint(table[["y_nm", "x_nm"]].to_numpy()[0] / 0.025).astype(int)
    whole_y, whole_x = np.rint(spot[["y_nm", "x_nm"]].to_numpy()[0] / 0.025).astype(int)
    assert micrograph.data[y, x] == image.data[whole_y, whole_x]
    with pytest.raises(ValueError, match="`labels` lack species"):
        crops(image, labels[["y_nm", "x_nm"]])
    with pytest.raises(ValueError, match="`labels` name nothing"):
        crops(image, labels.assign(y_nm=99.0))


def test_masks_need_a_name_for_every_label() -> None:
    mask = np.zeros((20, 20), int)
    mask[2:5, 2:5], mask[10:13, 4:7], mask[15, 15] = 1, 1, 2
    table = mask_labels(mask, {1: "V_Se", 2: "Ti_W"}, 0.1)
    assert table["species"].tolist() == ["V_Se", "V_Se", "Ti_W"]
    assert table[["y_nm", "x_nm"]].to_numpy() == pytest.approx(np.array([[0.3, 0.3], [1.1, 0.5], [1.5, 1.5]]))
    with pytest.raises(ValueError, match="label 2 has none"):
        mask_labels(mask, {1: "V_Se"}, 0.1)


def test_the_share_of_own_pairs() -> None:
    simulated, own = (((k, "simulated") for k in range(10**6)), [("a", "own"), ("b", "own")])
    kinds = [kind for _, kind in islice(mixed(simulated, own, share=0.4, first=5), 2000)]  # type: ignore[arg-type]
    assert set(kinds[:5]) == {"simulated"}
    assert np.mean([kind == "own" for kind in kinds[5:]]) == pytest.approx(0.4, abs=0.04)


def test_bad_input_is_one_sentence(image: nd.Micrograph, tiny: Any, tmp_path: Any) -> None:
    for keywords, words in (
        ({"minutes": 0}, "`minutes` must be"),
        ({"share": 1.0}, "`share` must be"),
        ({"crystal": "WSe3"}, "`crystal` must be"),
    ):
        with pytest.raises(ValueError, match=words):
            fine_tune(image, tiny, **keywords)
    for arguments, words in (
        (["--match", "nowhere.tif"], "--match needs --start"), ([], "give a recipe"),
        (["wse2-te", "--labels", "."], "--labels goes with --match"),
        (["wse2-te", "--detector-mrad", "40", "120"], "go with --match"),
        (["--match", "a.tif", "--start", "wse2-te", "--detector-mrad", "120", "40"], "`detector_outer_mrad`"),
        (["--match", "nowhere.tif", "--start", "wse2-te"], "nowhere.tif"),
    ):  # fmt: skip
        done = CliRunner().invoke(app, ["train", *arguments, "-o", str(tmp_path / "out")])
        assert done.exit_code == 2
        assert words in done.output
