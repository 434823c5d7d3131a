"""evaluate(): scores on labelled images; scoring: who meets whom."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cli import app
from napari_defects.evaluation.evaluating import evaluate, thinned
from napari_defects.evaluation.labelled import read_labelled
from napari_defects.evaluation.scoring import INVENTED, MISSED, class_scores, confusion, match_points, outcomes
from napari_defects.io import write_micrograph, write_table


def table(*rows):
    return pd.DataFrame(rows, columns=["y_nm", "x_nm", "species"]).assign(frame=0)


def met(found, truth, **changes):
    return outcomes(found, truth, **({"radius_nm": 0.1, "border_nm": 0.25, "extent_nm": (4.0, 4.0)} | changes))


def test_as_many_pairs_as_possible_before_the_nearest():
    """The nearest pair first would leave one point of each side alone."""
    first, second = np.array([[0.0, 0.0], [0.0, 0.09]]), np.array([[0.0, 0.08], [0.0, 0.17]])
    a, b = match_points(first, second, 0.1)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 0), (1, 1)]
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (2000, 2))
    a, b = match_points(points, points[::-1], 0.5)
    assert (a == 1999 - b).all()
    assert len(a) == 2000


def test_every_kind_of_outcome_counts_as_it_should():
    truth = table((1, 1, "V_Se"), (1, 2, "V_Se"), (2, 1, "Te_Se"), (2, 2, "V_W"), (0.1, 2, "V_Se"), (3.9, 3.9, "V_W"))
    found = table(
        (1.02, 1, "V_Se"), (1, 2.03, "Te_Se"), (2, 1.5, "V_W"), (2.0, 2.05, "V_W"), (0.12, 2, "V_W"), (3, 0.1, "V_W")
    )
    result = met(found, truth)
    assert len(result) == 5
    pairs = list(zip(result["truth"], result["said"], strict=True))
    assert sorted(pairs) == sorted(
        [("V_Se", "V_Se"), ("V_Se", "Te_Se"), ("V_W", "V_W"), ("Te_Se", MISSED), (INVENTED, "V_W")]
    )
    scores = class_scores(result).set_index("class")
    assert scores.loc["V_Se", ["truth", "said", "right"]].tolist() == [2, 1, 1]
    assert scores.at["V_Se", "recall"] == 0.5
    assert scores.at["V_W", "precision"] == 0.5
    assert scores.at["any class", "recall"] == 0.75
    assert scores.at["micro", "f1"] == pytest.approx(2 * 2 / 8)
    assert scores.at["macro", "f1"] == pytest.approx(np.mean([2 / 3, 0, 2 / 3]))
    low, high = scores.loc["V_Se", ["recall_low", "recall_high"]]
    assert low < 0.5 < high
    matrix = confusion(result)
    assert matrix.loc["V_Se", "Te_Se"] == 1
    assert matrix.loc["Te_Se", MISSED] == 1
    assert matrix.loc[INVENTED, "V_W"] == 1
    assert matrix.to_numpy().sum() == 5
    assert result["distance_pm"].max() == pytest.approx(50)


def test_truth_at_the_edge_neither_helps_nor_harms():
    truth = table((1, 1, "V_Se"), (2, 2, "V_W")).assign(edge=[False, True])
    assert len(met(table((1, 1, "V_Se"), (2, 2, "V_Se")), truth)) == 1
    assert len(met(table((1, 1, "V_Se")), truth)) == 1
    assert len(met(table().assign(frame=0), table().assign(frame=0))) == 0


def test_frames_do_not_meet():
    truth = table((1, 1, "V_Se"), (1, 1, "V_W")).assign(frame=[0, 1])
    result = met(table((1, 1, "V_W"), (1, 1, "V_W")).assign(frame=[0, 1]), truth)
    assert list(zip(result["truth"], result["said"], strict=True)) == [("V_Se", "V_W"), ("V_W", "V_W")]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder with one image, its truth in nm, and the same truth in pixels with papers' labels."""
    folder = tmp_path_factory.mktemp("labelled")
    image, sites = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.025, defects={"V_Se": 0.05, "V_W": 3}, dose_e_per_A2=2e5, seed=2
    )
    write_micrograph(image, folder / "one.tif")
    write_table(sites, folder / "one_sites.csv")
    defects = image.metadata["defects"]
    short = defects["species"].map({"V_Se": "SV", "V_W": "VW"})
    pixels = pd.DataFrame({"x": defects["x_nm"] / 0.025, "y": defects["y_nm"] / 0.025, "type": short})
    (folder / "other").mkdir()
    pixels.to_csv(folder / "other" / "truth.csv", index=False)
    return folder


def test_without_a_network_vacancies_are_found(labelled):
    result = evaluate(read_labelled([labelled]), crystal="WSe2")
    assert result.micro_f1 > 0.95
    assert set(result.classes["class"]) >= {"V_Se", "V_W", "any class", "micro", "macro"}
    assert result.images["image"].tolist() == ["one"]
    same = evaluate(read_labelled([labelled / "one.tif", labelled / "other" / "truth.csv"]), crystal="WSe2")
    pd.testing.assert_frame_equal(same.classes, result.classes)
    content = json.loads(result.to_json())
    assert set(content) == {"classes", "images", "outcomes", "confusion"}


def test_a_recalibrated_image_keeps_its_truth(labelled, tmp_path):
    """Pixels of another claimed size: truth in pixels goes with the image."""
    image = nd.read_micrograph(labelled / "one.tif").with_pixel_size(0.0265)
    write_micrograph(image, tmp_path / "off.tif")
    one = read_labelled([tmp_path / "off.tif", labelled / "other" / "truth.csv"], crystal="WSe2")
    assert one[0].micrograph.pixel_size_yx_nm[0] == pytest.approx(0.025, rel=0.01)
    assert evaluate(one, crystal="WSe2").micro_f1 > 0.95


def test_fewer_electrons_are_harder():
    image, _ = nd.simulate(
        "WSe2",
        field_of_view_nm=6.0,
        pixel_size_nm=0.025,
        dose_e_per_A2=1e5,
        seed=2,
        detector=nd.Detector(gain=20.0, offset=300.0),
    )
    less = thinned(image, 0.1)
    electrons = (image.frame().astype(float).mean() - 300) / 20
    assert less.frame().mean() == pytest.approx(0.1 * electrons, rel=0.16)  # read noise passes for electrons
    with pytest.raises(ValueError, match="`keep_electrons` must be"):
        evaluate([], crystal="WSe2", keep_electrons=0)


def test_the_verb_prints_and_writes(labelled, tmp_path):
    out = tmp_path / "scores.json"
    done = CliRunner().invoke(app, ["evaluate", "none", str(labelled), "--crystal", "WSe2", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "V_Se" in done.output
    assert "micro" in done.output
    assert MISSED in done.output
    assert json.loads(out.read_text())["classes"][0]["class"] == "V_Se"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none", "nowhere.tif", "--crystal", "WSe2"], "no table of truth beside it"),
        (["none", "{folder}", "--crystal", "WSe2", "--thin", "2"], "`keep_electrons` must be"),
        (["none", "{folder}"], "give --crystal"),
        (["unheard-of", "{folder}"], "`model` must be"),
        (["none", "{folder}/other/truth.csv", "--crystal", "WSe2"], "must follow its image"),
        (["none", "{folder}/other", "--crystal", "WSe2"], "no image there has a table"),
        (["none", "{folder}/one.tif", "{folder}/bad.csv", "--crystal", "WSe2"], "needs y_nm and x_nm"),
    ],
)
def test_bad_input_is_one_sentence(labelled, arguments, words):
    (labelled / "bad.csv").write_text("a,b\n1,2\n")
    done = CliRunner().invoke(app, ["evaluate", *(a.format(folder=labelled) for a in arguments)])
    (labelled / "bad.csv").unlink()
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.strip().count("\n") == 0
