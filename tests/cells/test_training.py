from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_defects as nd
from napari_defects.cells import Collection, crops, recipe_of, train_cells
from napari_defects.cells.box_training import BoxFitting, fit_boxes
from napari_defects.cells.examples import Examples, simulated
from napari_defects.cells.recipes import ENDINGS, names
from napari_defects.cells.training import Fitting, _temperature, fit, logits_of, scatter, tempered
from napari_defects.networks import StopTraining, load_model
from napari_defects.networks.zoo import check_architecture

SMALL = {"kind": "patches", "channels": 8, "inputs": 2, "side_px": 12}


def toys(n: int, seed: int) -> Examples:
    """Pictures whose kind is which of their two channels have a spot."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(3, size=n)
    pictures = rng.normal(0, 1, (n, 2, 12, 12))
    pictures[kinds == 1, 0, 4:8, 4:8] += 1.6
    pictures[kinds == 2, 1, 4:8, 4:8] += 1.6
    return Examples(pictures.astype(np.float16), kinds.astype(np.int64), np.full(n, 1e5), np.zeros(n, np.int64))


def test_a_network_learns_and_its_probabilities_are_honest() -> None:
    network, card = fit(SMALL, 3, toys(600, 1), toys(300, 2), Fitting(80, 48, noise=0.1), seed=3)
    test = toys(600, 4)
    logits = tempered(logits_of(network, test.pictures), card)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert (logits.argmax(1) == test.kinds).mean() > 0.9
    sure, right = probability.max(1), probability.argmax(1) == test.kinds
    for half in (sure > np.median(sure), sure <= np.median(sure)):
        assert abs(sure[half].mean() - right[half].mean()) < 0.08
    assert card["steps"] == 80
    again, _ = fit(SMALL, 3, toys(600, 1), toys(300, 2), Fitting(80, 48, noise=0.1), seed=3)
    for first, second in zip(network.weights().values(), again.weights().values(), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, first.half().float()), "rounded to half precision"


def honest(n: int, separation: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Honest logits of four equally frequent kinds, and the kinds; each but the first raises one of three heights."""
    kinds = rng.integers(4, size=n)
    heights = rng.normal(0, 1, (n, 3)) + separation * (kinds[:, None] == np.arange(1, 4))
    return np.column_stack([np.zeros(n), separation * (heights - separation / 2)]), kinds


def test_logits_are_sharpened_where_the_cells_of_an_image_are_alike() -> None:
    logits, _ = honest(6000, 5.0, np.random.default_rng(1))
    shares, card = np.full(4, 0.25), {"temperature": [1.1, 0.1], "shares": [0.25] * 4}
    assert scatter(logits, shares) == pytest.approx(1.0, rel=0.15), "honest ones vary as they should"
    assert scatter(0.4 * logits, shares) == pytest.approx(0.4, rel=0.15), "timid ones less"
    assert scatter(logits[:5], shares) == 1.0, "nobody knows"
    sharpened = tempered(0.4 * logits, card)[:, 1] / logits[:, 1]
    assert sharpened == pytest.approx(0.4 / (1.1 * 0.4 / 0.5), rel=0.1)
    assert tempered(logits, {"temperature": 1.2}) is logits


def test_the_temperature_is_found_on_images_that_differ() -> None:
    rng, parts = np.random.default_rng(2), []
    for image in range(40):
        truth, kinds = honest(300, 3.5, rng)
        parts.append(((0.3 if image % 2 else 1.0) * truth, kinds, np.full(300, image)))
    logits, kinds, images = (np.concatenate(part) for part in zip(*parts, strict=True))
    examples = Examples(np.zeros((len(kinds), 1), np.float16), kinds, np.zeros(len(kinds)), images)
    most, half = _temperature(logits, examples, np.full(4, 0.25))
    timid, right = (most * own / (own + half) for own in (0.3, 1.0))
    assert 0.25 < timid < 0.75 < right < 1.2


def test_a_training_that_was_broken_off_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    arguments = (SMALL, 3, toys(60, 1), toys(50, 2), Fitting(6, 16, noise=0.1))
    whole, _ = fit(*arguments)

    def breaks(done: int, total: int) -> None:
        if done == 4:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(*arguments, checkpoint=tmp_path / "state", progress=breaks)
    torch.manual_seed(99)
    seen = []
    resumed, card = fit(*arguments, checkpoint=tmp_path / "state", progress=lambda done, total: seen.append(done))
    assert seen == [5, 6]
    assert card["steps"] == 6
    for first, second in zip(whole.weights().values(), resumed.weights().values(), strict=True):
        assert torch.equal(first, second)
    (tmp_path / "state").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not one of this training"):
        fit(*arguments, checkpoint=tmp_path / "state")


def test_stopped_training_keeps_what_there_is() -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise StopTraining

    _, card = fit(SMALL, 3, toys(100, 1), toys(50, 2), Fitting(100, 16), progress=stop)
    assert card["steps"] == 5


def test_simulated_cells_are_labelled_by_what_is_missing() -> None:
    examples = simulated(nd.MOTE2, {**SMALL, "side_px": 21}, px_per_a=14, n_images=4, seed=3)
    assert examples.pictures.shape[1:] == (2, 21, 21)
    good = examples.doses > 3e4
    means = [
        examples.pictures[good & (examples.kinds == k)].astype(float)[:, :, 8:13, 8:13].mean((0, 2, 3))
        for k in (0, 2, 3)
    ]
    assert means[0][1] > means[1][1] + 0.5, "no chalcogen"
    assert means[0][0] > means[2][0] + 0.3, "no metal"


def test_boxes_can_be_trained_stopped_and_resumed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    middles = np.stack(np.meshgrid(np.arange(12, 116, 20), np.arange(12, 116, 20), indexing="ij"), -1).reshape(-1, 2)
    boxes = np.concatenate([middles - 8.0, middles + 8.0], 1)
    image = rng.normal(0, 0.1, (128, 128)).astype(np.float32)
    for y, x in middles:
        image[y - 8 : y + 8, x - 8 : x + 8] += 2
    options = BoxFitting(steps=2, batch=1, crop_px=96)
    tiny: dict[str, Any] = {"kind": "mobilenet", "blocks": 4, "hidden": 16}
    file = tmp_path / "boxes.ckpt"
    with pytest.raises(RuntimeError):
        fit_boxes(tiny, [(image, boxes, boxes)], options, progress=_fail, checkpoint=file)
    network, card = fit_boxes(tiny, [(image, boxes, boxes)], options, checkpoint=file)
    assert card["steps"] == 2
    assert set(network([torch.zeros(1, 70, 90)])[0]) == {"boxes", "labels", "scores"}


def _fail(done: int, total: int) -> None:
    raise RuntimeError(done)


def test_recipes_are_for_any_mx2_and_refused_in_a_sentence(tmp_path: Path) -> None:
    assert "mote2-cells" in names()
    found = recipe_of("ws2-cells")
    assert found is not None
    assert found[0].name == "WS2"
    assert recipe_of("wse2-te") is None
    for recipe in ENDINGS.values():
        check_architecture(recipe.architecture)
    for message, arguments in (
        ("`name` must be like mote2-cells", {"name": "nonsense"}),
        ("folder that exists", {"name": "mote2-cells", "out": tmp_path / "no" / "where"}),
        ("`labels` teach", {"name": "mote2-boxes", "labels": tmp_path}),
    ):
        with pytest.raises(ValueError, match=message):
            train_cells(**{"out": tmp_path / "model", **arguments})


def test_labelled_cells_join_the_training(mote2: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from dataclasses import replace

    micrograph, sites = mote2
    pictures = crops(micrograph, sites, "MoTe2", np.array([[-5, -5], [-4, -5]]))
    place = {"source": "mote2", "frame": 0, "y_nm": [1.0, 2.0], "x_nm": 1.0, "called": "perfect", "crystal": "MoTe2"}
    import pandas as pd

    Collection(tmp_path / "mine").add(pictures, pd.DataFrame({"species": ["perfect", "V_Te"], **place}))
    small = replace(ENDINGS["cells"], images=2, held_back=2, fitting=Fitting(3, 8))
    monkeypatch.setitem(ENDINGS, "cells", small)
    train_cells("mote2-cells", out=tmp_path / "model", labels=tmp_path / "mine")
    model = load_model(tmp_path / "model.safetensors")
    assert model.task == "cells"
    assert model.card["recipe"] == "mote2-cells"
    assert "V_Te+V_Mo" in (tmp_path / "model.md").read_text()
    with pytest.raises(ValueError, match="no labelled cells of WSe2"):
        Collection(tmp_path / "mine").examples("WSe2", small.architecture, 14)


def test_the_network_of_the_paper_trains_from_its_recipe_and_resumes(tmp_path: Path, monkeypatch: Any) -> None:
    from dataclasses import replace

    recipe: Any = ENDINGS["cells-paper"]
    assert recipe.architecture == {"kind": "resnet18", "channels": 64, "inputs": 2, "side_px": 224}
    assert recipe.fitting.steps * recipe.fitting.batch == 20 * 4800
    few = replace(recipe, images=1, held_back=1, fitting=replace(recipe.fitting, steps=2, batch=1))
    monkeypatch.setitem(ENDINGS, "cells-paper", few)
    monkeypatch.setattr("napari_defects.cells.examples.MOST_OF_AN_IMAGE", 2)
    state, out = tmp_path / "state", tmp_path / "paper"
    with pytest.raises(RuntimeError):
        train_cells("mote2-cells-paper", out=out, checkpoint=state, progress=_fail)
    steps: list[int] = []
    model = train_cells("mote2-cells-paper", out=out, checkpoint=state, progress=lambda done, _: steps.append(done))
    assert steps == [2], "the first step was not taken again"
    assert sum(t.numel() for t in model.network.weights().values()) == pytest.approx(11.2e6, rel=0.01)
    assert load_model(out.with_suffix(".safetensors")).task == "cells"
