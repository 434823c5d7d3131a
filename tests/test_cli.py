from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cli import app
from napari_defects.io import channels, write_micrograph

VERBS = [
    "simulate",
    "train",
    "evaluate",
    "predict",
    "locate",
    "classify",
    "cells",
    "average",
    "strain",
    "eshelby",
    "bonds",
    "track",
    "count",
    "analyze",
    "batch",
    "average-dataset",
    "watch",
    "models",
    "noise-sweep",
    "demo",
]


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(*args):
    """Run what must end in one line on stderr and exit code 2, and return the line."""
    done = run(*args)
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("napari-defects: error: ")
    return lines[0].removeprefix("napari-defects: error: ")


@pytest.fixture(scope="module")
def image(wse2, tmp_path_factory):
    return write_micrograph(wse2, tmp_path_factory.mktemp("cli") / "image.tif")


def test_verbs_are_those_of_the_library():
    shown = run("--help").output
    assert all(f"\n  {verb} " in shown for verb in VERBS)
    assert "..." not in shown.partition("Commands:")[2], "the list says all of each verb"
    assert run("--version").output.strip() == nd.__version__
    for verb in VERBS:
        assert run(verb, "--help").exit_code == 0


def test_simulate_with_a_bench_of_ones_own(tmp_path):
    out, settings = tmp_path / "a.tif", ("microscope.convergence_mrad=25", "aberrations.C12_nm=2", "scan.tremor_pm=6",
                                         "scan.drift_pm_per_line=[0.1, 0.2]", "detector.dtype=uint16")  # fmt: skip
    given = [part for setting in settings for part in ("--set", setting)]
    done = run("simulate", "WSe2", "-o", out, "--field-of-view-nm", 3, "--preset", "Lee 2020", *given)
    assert done.exit_code == 0, done.output
    preset = nd.simulation.PRESETS["Lee 2020"]
    microscope = replace(preset["microscope"], convergence_mrad=25, aberrations=nd.Aberrations(C12_nm=2))
    again, _ = nd.simulate(
        "WSe2", field_of_view_nm=3, detector=nd.Detector(dtype="uint16"), **{**preset, "microscope": microscope},
        scan=nd.Scan(drift_pm_per_line=(0.1, 0.2), tremor_pm=6),
    )  # fmt: skip
    assert np.array_equal(nd.read_micrograph(out).frame(), again.frame())


@pytest.mark.parametrize(
    ("setting", "words"),
    [("scan.wobble_pm=3", "a scan has rotation_deg"), ("lens.size=3", "knows the parts microscope"),
     ("scan.tremor_pm=-1", "must be 0 or more"), ("tremor_pm=1", "needs PART.KEY=VALUE")],
)  # fmt: skip
def test_simulate_says_what_a_part_has(tmp_path, setting, words):
    done = run("simulate", "WSe2", "-o", tmp_path / "a.tif", "--set", setting)
    assert done.exit_code != 0
    assert words in done.output


def test_simulate(tmp_path):
    out = tmp_path / "a.tif"
    done = run("simulate", "WSe2", "-o", out, "--field-of-view-nm", 4, "--pixel-size-nm", 0.025,
               "--defect", "V_Se=3", "--defect", "Te_Se=0.05", "--seed", 5)  # fmt: skip
    assert done.exit_code == 0, done.output
    micrograph = nd.read_micrograph(out)
    assert micrograph.pixel_size_nm == pytest.approx(0.025)
    again = nd.simulate("WSe2", field_of_view_nm=4.0, pixel_size_nm=0.025, defects={"V_Se": 3, "Te_Se": 0.05}, seed=5)[
        0
    ]
    assert np.array_equal(micrograph.data, np.asarray(again.data, np.float32))
    defects = nd.read_table(tmp_path / "a_defects.csv", "defects")
    assert (defects["species"] == "V_Se").sum() == 3
    nd.read_table(tmp_path / "a_sites.csv", "sites")


def test_step_by_step_gives_the_numbers_of_analyze(image, results, tmp_path):
    atoms, sites, defects, strain, counts = (
        tmp_path / f"{n}.csv" for n in ("atoms", "sites", "defects", "strain", "counts")
    )
    none = ("--model", "none")
    assert run("locate", image, *none, "-o", atoms).exit_code == 0
    done = run("classify", image, *none, "--atoms", atoms, "--crystal", "wse2", "--write-sites", sites, "-o", defects)
    assert done.exit_code == 0, done.output
    assert run("strain", "--sites", sites, "-o", strain).exit_code == 0
    assert run("count", "--defects", defects, "--sites", sites, "--crystal", "WSe2", "-o", counts).exit_code == 0
    near = {"rtol": 1e-4, "atol": 1e-6}
    for path, table in ((defects, results.defects), (counts, results.counts)):
        pd.testing.assert_frame_equal(nd.read_table(path), table.reset_index(drop=True), check_dtype=False, **near)
    again = tmp_path / "again.csv"
    assert run("classify", image, *none, "--sites", sites, "--crystal", "WSe2", "-o", again).exit_code == 0
    assert again.read_text() == defects.read_text()
    assert run("average", image, "--defects", defects, "--sites", sites, "-o", tmp_path / "averages").exit_code == 0
    averages, fields = tmp_path / "averages", tmp_path / "fields"
    assert (averages / "V_Se.tif").is_file()
    done = run("eshelby", averages, "--species", "V_Se", "-o", fields, "--line", -0.6, 0, 0.6, 0)
    assert done.exit_code == 0, done.output
    inclusion = nd.read_table(fields / "eshelby.csv").set_index("quantity")["value"]
    assert inclusion["oscillation_wavelength_nm"] > 0.2
    assert set(nd.read_table(fields / "line.csv")["source"]) == {"experiment", "elastic"}
    assert "there is no average of 'V_W2'" in refused("eshelby", averages, "--species", "V_W2", "-o", fields)


def test_analyze_from_recipe_options_and_settings(image, results, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[fit_lattice]\ncrystal = "WSe2"\n[predict]\nmodel = "none"\n[average]\nradius_nm = 0.8\n')
    done = run(
        "analyze",
        image,
        "--recipe",
        recipe,
        "--set",
        "average.radius_nm=0.7",
        "--set",
        "count.confidence=0.9",
        "-o",
        tmp_path / "out",
    )
    assert done.exit_code == 0, done.output
    assert "V_Se" in done.stdout
    written = nd.Recipe.read(tmp_path / "out" / "recipe.toml")
    assert written.keywords("average")["radius_nm"] == 0.7
    assert written.keywords("count")["confidence"] == 0.9
    assert written.keywords("input")["file"] == "image.tif"
    assert len(nd.read_table(tmp_path / "out" / "defects.csv")) == len(results.defects)


def test_analyze_without_a_crystal_says_what_is_missing(image, tmp_path):
    done = run("analyze", image, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "no defects were looked for: give --crystal, as WSe2 or graphene" in done.stdout
    assert not (tmp_path / "out" / "defects.csv").exists()


def test_track(tmp_path):
    one = {"y_nm": 1.0, "x_nm": 2.0, "i": 0, "j": 0, "sublattice": "A", "species": "Si1C3"}
    one |= {"probability": 1.0, "method": "maps"}
    rows = [one | {"frame": f, "defect": f, "y_nm": 1 + 0.1 * f} for f in range(4)]
    defects = nd.write_table(pd.DataFrame(rows), tmp_path / "defects.csv")
    done = run("track", "--defects", defects, "-o", tmp_path / "tracks.csv", "--max-step-nm", 0.3)
    assert done.exit_code == 0, done.output
    assert nd.read_table(tmp_path / "tracks.csv", "tracks")["track"].nunique() == 1


def test_models_lists_what_is_shipped():
    done = run("models")
    assert done.exit_code == 0
    for model in nd.list_models():
        assert model["name"] in done.stdout
    heads = [line.partition(" nm/px")[0] for line in done.stdout.splitlines()]
    assert len({head.rindex(" ") for head in heads}) == 1, "the columns stand below each other"


def test_predict_writes_one_channel_a_class(image, tmp_path):
    if not any(m["name"] == "wse2-te" for m in nd.list_models()):
        pytest.skip("the weights are not there yet")
    done = run("predict", image, "--crystal", "WSe2", "-o", tmp_path / "maps.tif")
    assert done.exit_code == 0, done.output
    names = channels(tmp_path / "maps.tif")
    assert names[:3] == ["background", "W", "Se2"]
    assert nd.read_micrograph(tmp_path / "maps.tif", channel="W").pixel_size_nm == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("analyze", "nowhere.tif", "-o", "OUT"), "no file nowhere.tif"),
        (("analyze", "IMAGE", "--crystal", "Kryptonite", "-o", "OUT"), "Kryptonite"),
        (("analyze", "IMAGE", "--crystal", "WSe2", "--model", "nonesuch", "-o", "OUT"), "nonesuch"),
        (("analyze", "IMAGE", "--pixel-size-nm", "20", "-o", "OUT"), "pixel_size_nm"),
        (("analyze", "IMAGE", "--channel", "7", "-o", "OUT"), "channel"),
        (("analyze", "IMAGE", "--recipe", "nowhere.toml", "-o", "OUT"), "no recipe"),
        (("analyze", "IMAGE", "--set", "locate.sigma=3", "-o", "OUT"), "unknown locate keyword 'sigma'"),
        (("analyze", "IMAGE", "--set", "nonsense", "-o", "OUT"), "STEP.KEY=VALUE"),
        (("analyze", "IMAGE", "--set", "nonsense=2", "-o", "OUT"), "STEP.KEY=VALUE"),
        (("locate", "IMAGE", "--device", "abacus", "-o", "OUT.csv"), "`device` must be one that is there"),
        (("classify", "IMAGE", "-o", "OUT"), "--crystal"),
        (("predict", "IMAGE", "-o", "OUT"), "--model"),
        (("track", "--defects", "IMAGE", "-o", "OUT.csv"), "csv, parquet or xlsx"),
        (("simulate", "WSe2", "--defect", "V_Se", "-o", "OUT.tif"), "SPECIES=AMOUNT"),
        (("simulate", "WSe2", "--defect", "V_Se=many", "-o", "OUT.tif"), "number"),
        (("simulate", "WSe2", "--defect", "V_Mo=0.1", "-o", "OUT.tif"), "Mo"),
        (("train", "nonesuch", "-o", "OUT"), "nonesuch"),
        (("batch", "FOLDER", "-o", "OUT"), "no image"),
        (("watch", "nowhere", "-o", "OUT"), "no folder"),
    ],
)
def test_wrong_arguments_end_in_one_line(args, words, image, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"IMAGE": image, "OUT": tmp_path / "out", "OUT.tif": tmp_path / "out.tif", "OUT.csv": tmp_path / "out.csv"}
    line = refused(*(places.get(a, tmp_path / "empty" if a == "FOLDER" else a) for a in args))
    assert words in line
    assert not (tmp_path / "out").exists()


def test_missing_options_are_named():
    for args in (("strain", "-o", "x.csv"), ("count", "--defects", "d.csv", "-o", "x.csv")):
        done = run(*args)
        assert done.exit_code == 2
        assert "Missing option '--sites'" in done.stderr


BAD = {
    "nan": (np.full((64, 64), np.nan), "NaN"),
    "constant": (np.ones((64, 64)), "constant"),
    "tiny": (np.eye(16), "at least 32"),
    "flat": (np.ones(64), "(y, x)"),
    "rgb": (np.random.default_rng(0).random((64, 64, 3)), "RGB"),
    "empty": (np.zeros((0, 64)), "empty"),
    "complex": (np.ones((64, 64), complex), "real"),
    "noise": (np.random.default_rng(0).random((96, 96)), "WSe2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_end_in_one_line(name, tmp_path):
    data, words = BAD[name]
    np.save(tmp_path / "a.npy", data)
    line = refused(
        "analyze",
        tmp_path / "a.npy",
        "--pixel-size-nm",
        0.02,
        "--crystal",
        "WSe2",
        "--model",
        "none",
        "-o",
        tmp_path / "out",
    )
    assert words in line


def test_missing_pixel_size_damaged_file_and_wrong_tables(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((64, 64)))
    assert "pixel_size_nm" in refused("analyze", tmp_path / "a.npy", "-o", tmp_path / "out")
    (tmp_path / "b.dm4").write_bytes(b"nonsense")
    assert "damaged" in refused("analyze", tmp_path / "b.dm4", "-o", tmp_path / "out")
    (tmp_path / "c.csv").write_text("x,y\n1,2\n")
    assert "classify()" in refused("track", "--defects", tmp_path / "c.csv", "-o", tmp_path / "out.csv")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    line = refused(
        "predict",
        tmp_path / "a.npy",
        "--pixel-size-nm",
        0.02,
        "--model",
        tmp_path / "bad.safetensors",
        "-o",
        tmp_path / "m.tif",
    )
    assert "bad.safetensors" in line


@pytest.mark.parametrize("dtype", ["int16", ">u2", ">f4", "uint8"])
def test_any_number_format_is_fine(wse2, tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.clip(wse2.data * 2, 0, 255).astype(dtype))
    done = run("locate", tmp_path / "a.npy", "--pixel-size-nm", 0.025, "-o", tmp_path / "atoms.csv")
    assert done.exit_code == 0, done.output
    assert len(nd.read_table(tmp_path / "atoms.csv", "atoms")) > 600


def test_output_that_cannot_be_written(image, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("locate", image, "-o", tmp_path / "file" / "atoms.csv")
    assert "cannot be written" in refused("simulate", "WSe2", "--field-of-view-nm", 2, "-o", "/proc/a.tif")


def test_the_program_itself_has_no_traceback(tmp_path):
    program = [sys.executable, "-c", "from napari_defects.cli import main; main()"]
    arguments = ["locate", "no.tif", "-o", str(tmp_path / "atoms.csv")]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_interrupt_is_130(monkeypatch, image, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_defects.io.read_micrograph", interrupt)
    assert run("locate", image, "-o", tmp_path / "a.csv").exit_code == 130


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("simulate", ["{CRYSTAL}", "height and width of the image  [default: 10.0]", "side of a pixel  [default: 0.02]",
                      "electrons per square angstrom of one frame [default: 100000.0]"]),
        ("track", ["farthest a defect goes", "--recipe", "--set STEP.KEY=VALUE",
                   "missing before its trajectory ends [default: 2]"]),
        ("average-dataset", ["{DATASET}", "most images to take members from  [default: 256]"]),
        ("batch", ["{IMAGE}...", "folder to write into", "network or its file, or none [default: the crystal's]"]),
        ("bonds", ["[default: none]"]),
        ("strain", ["table to write: .csv, .parquet or .xlsx"]),
        ("train", ["at the latest [default with --match: 10.0]", "processes that simulate [default: 1]"]),
    ],
)  # fmt: skip
def test_help_is_in_the_words_and_defaults_of_the_steps(verb, words):
    said = " ".join(run(verb, "--help").output.split())
    for one in words:
        assert " ".join(one.split()) in said


def test_no_option_is_without_help():
    group = get_command(app)
    for name, command in group.commands.items():
        with command.make_context(name, [], resilient_parsing=True) as context:
            command.get_help(context)
        assert [p.name for p in command.params if getattr(p, "help", "") is None] == [], name
