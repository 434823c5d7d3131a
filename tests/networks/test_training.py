from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_defects.micrograph import Micrograph
from napari_defects.networks import StopTraining, Training, predict, train

from .conftest import OPTIONS
from .toys import CLASSES, toy, toys

SHORT = replace(OPTIONS, steps=12, validate_every=5, images=8, held_back=2)


def test_training_learns_to_name_columns(toy_model):
    assert toy_model.card["score"] > 0.9
    losses = [row["loss"] for row in toy_model.card["history"]]
    assert losses[-1] < 0.6 * losses[0]
    rows = {row["class"]: row for row in toy_model.card["validation"] if row["dose_e_per_A2"] == "all"}
    assert set(rows) == {"defects", "W", "V_W", "Te_W"}
    assert rows["Te_W"]["recall"] > 0.85
    assert toy_model.card["dose_e_per_A2"] == [1e5, 1e5]


def test_same_seed_same_weights():
    first, second, other = (train(toys(10), classes=CLASSES, options=SHORT, seed=s, device="cpu") for s in (3, 3, 4))
    assert first.sha256 == second.sha256 != other.sha256


def test_progress_counts_every_step():
    seen = []
    train(toys(10), classes=CLASSES, options=SHORT, progress=lambda *now: seen.append(now))
    assert seen == [(k, 12) for k in range(1, 13)]


def test_stop_keeps_the_best_weights():
    def stop(done, total):
        if done == 7:
            raise StopTraining

    model = train(toys(10), classes=CLASSES, options=SHORT, progress=stop)
    assert model.card["steps"] == 7
    assert [row["step"] for row in model.card["history"]] == [5, 7]


def test_resumes_after_a_kill(tmp_path):
    options = replace(SHORT, checkpoint=tmp_path / "run.ckpt")

    def kill(done, total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toys(10), classes=CLASSES, options=options, progress=kill)
    steps = []
    model = train(toys(10), classes=CLASSES, options=options, progress=lambda done, total: steps.append(done))
    assert steps == [9, 10, 11, 12]
    assert [row["step"] for row in model.card["history"]] == [5, 10, 12]


def test_damaged_checkpoint_is_one_sentence(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"`checkpoint` .* is not one of this training"):
        train(toys(10), classes=CLASSES, options=replace(SHORT, checkpoint=path))


def test_fine_tuning_starts_from_a_model(tmp_path, toy_model):
    path = toy_model.save(tmp_path / "toy")
    options = replace(OPTIONS, steps=1, validate_every=1, learning_rate=1e-9, start=path)
    model = train(toys(40), classes=CLASSES, options=options, seed=1)
    assert model.card["score"] == pytest.approx(toy_model.card["score"], abs=0.02)


def test_fine_tuning_adds_a_class(tmp_path, toy_model):
    path = toy_model.save(tmp_path / "toy")
    more = (*CLASSES[:2], "darker_W", *CLASSES[2:])
    options = replace(OPTIONS, steps=1, validate_every=1, learning_rate=1e-9, start=path)
    model = train(toys(40), classes=more, options=options, seed=1)
    assert model.classes == more
    assert model.card["score"] == pytest.approx(toy_model.card["score"], abs=0.02)
    with pytest.raises(ValueError, match="another architecture"):
        train(toys(40), classes=more, options=replace(options, channels=12))


def test_odds_shift_the_balance_between_classes():
    counts = []
    for factor in (1e-3, 1.0, 1e3):
        model = train(toys(10), classes=CLASSES, options=replace(SHORT, odds={"V_W": factor}), seed=2)
        counts.append(int((predict(toy(50)[0], model).data.argmax(axis=0) == CLASSES.index("V_W")).sum()))
    assert counts[0] <= counts[1] < counts[2]
    with pytest.raises(ValueError, match="`odds` names 'Xx'"):
        train(toys(10), classes=CLASSES, options=replace(SHORT, odds={"Xx": 2.0}))


def test_early_end_when_nothing_gets_better():
    options = replace(SHORT, steps=200, validate_every=2, patience=2, learning_rate=1e-12)
    model = train(toys(10), classes=CLASSES, options=options)
    assert model.card["steps"] < 20


def test_clock_ends_the_training():
    model = train(toys(10), classes=CLASSES, options=replace(SHORT, steps=10**6, minutes=0.02))
    assert model.card["steps"] < 10**4


def test_images_smaller_than_the_crop():
    pairs = [toy(k, side_px=48) for k in range(6)]
    assert train(pairs, classes=CLASSES, options=replace(SHORT, steps=2)).card["steps"] == 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 0}, "steps"), ({"batch": -1}, "batch"), ({"learning_rate": 0.0}, "learning_rate"),
        ({"pixel_size_nm": 20.0}, "pixel_size_nm"), ({"minutes": 0.0}, "minutes"),
        ({"crop_px": 8}, "crop_px"), ({"odds": {"W": 0.0}}, "odds"),
    ],
)  # fmt: skip
def test_options_out_of_bounds(change, word):
    with pytest.raises(ValueError, match=f"`{word}` must be"):
        Training(**change)


def test_bad_pairs_end_in_one_sentence():
    micrograph, table = toy(0)
    for pairs, message in (
        ([], "`pairs` gave 0 pair"),
        ([(micrograph, table)] * 2, "`pairs` gave 2 pair"),
        ([(micrograph, table.assign(species="Xx_W"))], "'Xx_W', which is not among `classes`"),
        ([(micrograph, table.drop(columns="x_nm"))], "lacks x_nm"),
        ([(Micrograph(micrograph.data), table)], "`pixel_size_nm` is not known"),
    ):
        with pytest.raises(ValueError, match=message):
            train(pairs, classes=CLASSES, options=SHORT)
    with pytest.raises(TypeError, match="single frames"):
        train([(Micrograph(np.stack([micrograph.data] * 2), 0.02), table)], classes=CLASSES, options=SHORT)
    with pytest.raises(ValueError, match="`classes` must be"):
        train(toys(10), classes=("W", "background"), options=SHORT)
    with pytest.raises(ValueError, match="`device` must be"):
        train(toys(10), classes=CLASSES, options=SHORT, device="abacus")
