from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.averages import average
from napari_defects.batch import Dataset, average_dataset, averaging, datasets, run_batch, watch, watching, work
from napari_defects.io import write_micrograph

RECIPE = {
    "fit_lattice": {"crystal": "WSe2"},
    "predict": {"model": "none"},
    "average": {"species": ["V_Se"], "rounds": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    for k in range(2):
        image, _ = nd.simulate("WSe2", field_of_view_nm=4.0, pixel_size_nm=0.03, defects={"V_Se": 4}, seed=k)
        write_micrograph(image, place / f"image{k}.tif")
    (place / "broken.dm4").write_bytes(b"nothing")
    (place / "notes.txt").write_text("not an image")
    return place


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run_batch([folder], out, RECIPE, workers=0)


def test_the_good_are_done_and_the_broken_is_named(done):
    out, summary = done
    assert summary["status"].tolist() == ["failed", "done", "done"]
    assert summary["file"].tolist() == ["broken.dm4", "image0.tif", "image1.tif"]
    assert "damaged" in summary["error"][0]
    assert (out / "image0" / "defects.csv").is_file()
    assert not (out / "broken").exists()
    assert nd.read_table(out / "summary.csv")["status"].tolist() == summary["status"].tolist()
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_tables_are_joined(done):
    out, summary = done
    atoms = pd.read_parquet(out / "tables" / "atoms")
    assert atoms.groupby("image", observed=True).size().to_dict() == {
        "image0": summary["columns"][1], "image1": summary["columns"][2],
    }  # fmt: skip
    assert len(pd.read_parquet(out / "tables" / "defects")) == summary["defects"].sum()


def test_it_goes_on_where_it_stopped(done, folder, tmp_path):
    out, _ = done
    shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "image1")
    seen = []
    again = run_batch([folder], tmp_path / "out", RECIPE, workers=0, progress=lambda *p: seen.append(p))
    assert again["status"].tolist() == ["failed", "kept", "done"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    other = RECIPE | {"count": {"confidence": 0.9}}
    assert run_batch([folder / "image0.tif"], tmp_path / "out", other, workers=0)["status"].tolist() == ["done"]


def test_processes_give_the_same(done, folder, tmp_path):
    out, _ = done
    summary = run_batch([folder / "image0.tif"], tmp_path / "out", RECIPE, workers=1)
    assert summary["status"].tolist() == ["done"], summary["error"][0]
    for name in ("defects.csv", "strain.csv", "averages/V_Se_sites.csv"):
        assert (tmp_path / "out" / "image0" / name).read_bytes() == (out / "image0" / name).read_bytes()


def test_members_of_all_images_are_averaged_whatever_made_them(done, folder, tmp_path):
    out, summary = done
    averages = Dataset(out).averages
    one = averages["V_Se"]
    own = [nd.read_table(out / f"image{k}" / "averages" / "V_Se_members.csv")["accepted"].sum() for k in range(2)]
    assert one.n == one.members["accepted"].sum() == sum(own)
    assert set(one.members.loc[one.members["accepted"], "image"]) == {"image0", "image1"}
    assert np.nanmedian(one.sites["y_err_nm"]) < 0.01
    again = run_batch([folder], tmp_path / "out", RECIPE, workers=2, report=False)
    assert again["status"].tolist() == summary["status"].tolist()
    for file in (out / "averages").iterdir():
        assert (tmp_path / "out" / "averages" / file.name).read_bytes() == file.read_bytes()


def test_averages_are_made_again_only_when_something_has_changed(done, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    calls = []
    monkeypatch.setattr(averaging, "average", lambda *a, **k: calls.append(k["max_members"]) or average(*a, **k))
    assert average_dataset(Dataset(out))["V_Se"].n > 2
    assert not calls
    (out / ".averages-unfinished").mkdir()  # of a run that was killed
    assert average_dataset(Dataset(out), max_members=6)["V_Se"].n <= 6
    assert calls == [6]
    assert not list(out.glob(".*"))
    (folder / "image0.tif").rename(tmp_path / "away.tif")
    try:
        assert set(average_dataset(Dataset(out), max_members=7)["V_Se"].members["image"]) == {"image1"}
    finally:
        (tmp_path / "away.tif").rename(folder / "image0.tif")
    run_batch([folder], out, RECIPE | {"average": {"species": []}}, workers=0, report=False)
    assert not (out / "averages").exists()


def test_files_of_one_name_get_their_own_folders(tmp_path):
    files = [tmp_path / "a" / "x.tif", tmp_path / "b" / "x.tif", tmp_path / "a" / "x.dm4", tmp_path / "y.tif"]
    folders = work.folders_for(files, tmp_path)
    assert sorted(folders) == sorted(files)
    assert len(set(folders.values())) == 4
    assert folders[tmp_path / "y.tif"] == tmp_path / "y"


def test_a_folder_stays_whose_it_is_and_the_datasets_own_are_taken(tmp_path):
    first = work.folders_for([tmp_path / "b.tif", tmp_path / "tables.tif"], tmp_path)
    assert first[tmp_path / "b.tif"] == tmp_path / "b"
    assert first[tmp_path / "tables.tif"].name not in ("tables", "averages")
    later = work.folders_for([tmp_path / "b.tif", tmp_path / "b.dm4"], tmp_path, first)
    assert later[tmp_path / "b.tif"] == tmp_path / "b"
    assert later[tmp_path / "b.dm4"] == tmp_path / "b_dm4"


@pytest.mark.parametrize("name", ["001", "a%20b", "NaN", "1.5"])
def test_images_are_called_as_they_are(tmp_path, name):
    (place := tmp_path / name).mkdir()
    (tmp_path / "summary.csv").write_text("file,folder,status\n")
    nd.io.write_table(nd.simulate("WSe2", field_of_view_nm=2)[1], place / "sites.csv")
    datasets.write_partitions(place)
    assert set(Dataset(tmp_path).table("sites")["image"]) == {name}
    (place / "sites.csv").unlink()
    datasets.write_partitions(place)
    assert not len(Dataset(tmp_path).table("sites"))


def test_nothing_to_do_and_nowhere_to_write(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        run_batch([tmp_path / "empty"], tmp_path / "out")
    np.save(tmp_path / "a.npy", np.eye(64))
    with pytest.raises(OSError, match="proc"):
        run_batch([tmp_path / "a.npy"], "/proc/out", workers=0)


class Looks:
    """Stands for the event that ends a watch: writes what comes next into a file between two looks."""

    def __init__(self, file, contents):
        self.file, self.contents = file, list(contents)

    def is_set(self):
        return not self.contents

    def wait(self, seconds):
        if content := self.contents.pop(0):
            self.file.write_bytes(content)


def test_watch_waits_until_a_file_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "analyzed", lambda file, *_, **__: ({"read": Path(file).read_bytes()}, None))
    (tmp_path / "in").mkdir()
    stop = Looks(tmp_path / "in" / "a.npy", [b"1", b"12", b"123", None, None, None, b"1234", None, None, None])
    rows = list(watch(tmp_path / "in", tmp_path / "out", stop=stop))
    assert [row["read"] for row in rows] == [b"123", b"1234"]
    assert all(0 <= row["latency_s"] < 60 for row in rows)
    with pytest.raises(FileNotFoundError, match="no folder"):
        next(watch(tmp_path / "nowhere", tmp_path / "out"))


def test_watch_gives_tables_first_and_makes_pictures_when_nothing_waits(folder, done, tmp_path, monkeypatch):
    images, out, tries = tmp_path / "in", tmp_path / "out", []
    images.mkdir()
    shutil.copy(folder / "image0.tif", images)

    def complete(row, results, progress):
        tries.append(row["file"])
        if len(tries) == 1:  # another file comes meanwhile
            shutil.copy(folder / "image1.tif", images)
            time.sleep(0.02)
        progress(1, 2)
        work.complete(row, results, progress)

    monkeypatch.setattr(watching, "complete", complete)
    stop = threading.Event()
    rows = watch(images, out, RECIPE, interval_s=0.01, stop=stop)
    assert next(rows)["status"] == "done"
    assert (out / "image0" / "defects.csv").read_bytes() == (done[0] / "image0" / "defects.csv").read_bytes()
    assert not (out / "image0" / "figures").exists()
    assert next(rows)["file"] == "image1.tif"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(next, rows, None)
        wait_for(lambda: len(tries) == 3)
        stop.set()
    assert tries == ["image0.tif", "image1.tif", "image0.tif"]
    again = run_batch([images], out, RECIPE, workers=0, report=False).set_index("file")["status"]
    assert again["image1.tif"] == "kept"
    for name in ("strain.csv", "averages/V_Se_sites.csv"):
        assert (out / "image0" / name).read_bytes() == (done[0] / "image0" / name).read_bytes()


def test_a_hook_gets_every_result_and_may_fail(folder, tmp_path):
    seen = []

    def hook(row, results):
        seen.append((row["file"], len(results.atoms)))
        raise OSError("the stage is locked")

    rows = watch(folder, tmp_path / "out", RECIPE, interval_s=0.01, hook=hook)
    first = [next(rows) for _ in range(2)]
    assert [row["status"] for row in first] == ["failed", "done"]
    assert seen == [("image0.tif", first[1]["columns"])]
    assert first[1]["error"] == "the hook failed: the stage is locked"
    with pytest.raises(ValueError, match="names no function"):
        next(watch(folder, tmp_path / "out", RECIPE, hook="napari_defects:nothing"))


def test_a_hook_may_be_a_command(folder, tmp_path):
    copy = f"{sys.executable} -c __import__('shutil').copy(__import__('sys').argv[1]+'/defects.csv','{tmp_path}')"
    rows = watch(folder, tmp_path / "out", RECIPE, interval_s=0.01, hook=copy)
    assert [next(rows)["error"] for _ in range(2)][1] is None
    assert (tmp_path / "defects.csv").read_bytes() == (tmp_path / "out" / "image0" / "defects.csv").read_bytes()


def test_a_dataset_counts_all_images_together(done):
    out, summary = done
    dataset = Dataset(out)
    assert dataset.images == ["image0", "image1"]
    vacancies = dataset.table("defects", columns=["species", "y_nm"], species="V_Se")
    assert set(vacancies["image"]) == {"image0", "image1"}
    pooled = dataset.counts().set_index("species")
    assert pooled.loc["V_Se", "count"] == len(vacancies)
    assert pooled.attrs["area_nm2"] == pytest.approx(summary["area_nm2"].astype(float).sum())
    assert nd.read_table(out / "counts.csv", "counts")["count"].sum() == summary["defects"].sum()
    with pytest.raises(ValueError, match="one of atoms"):
        dataset.table("pixels")
    with pytest.raises(FileNotFoundError, match="no dataset"):
        Dataset(out / "image0")


def test_the_report_is_one_file_that_needs_nothing_else(done):
    out, _ = done
    html = (out / "report.html").read_text()
    assert "damaged" in html  # the failed file, and why
    assert "image0.tif" in html
    assert html.count("data:image/jpeg") == 2
    assert html.count("data:text/csv") >= 2
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "napari-defects" in html  # versions
    csv = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", html)[1]).decode()
    assert csv.startswith("species,count")


def test_a_name_cannot_put_markup_or_a_formula_into_the_report(folder, tmp_path):
    image = tmp_path / "=1+1<b>.tif"
    shutil.copy(folder / "image0.tif", image)
    run_batch([image], tmp_path / "out", RECIPE, workers=0)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<b>.tif" not in html
    assert "&lt;b&gt;.tif" in html


def many(folder, n):
    """`n` copies of an image under other names, with one pixel changed."""
    image = nd.read_micrograph(folder / "image0.tif")
    place = folder.parent / f"{folder.name}-many"
    if not place.exists():
        place.mkdir()
        for k in range(n):
            data = np.array(image.data)
            data[0, 0] += k
            write_micrograph(nd.Micrograph(data, image.pixel_size_nm), place / f"copy{k}.tif")
    return place


def wait_for(there, seconds=120):
    end = time.time() + seconds
    while not there():
        assert time.time() < end, "it never came"
        time.sleep(0.05)


def test_a_worker_that_is_killed_loses_nothing(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        pids = [nanny.pid for nanny in cluster.workers.values()]
        images = many(folder, 4)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(
                run_batch, [images], tmp_path / "out", RECIPE, scheduler=cluster.scheduler_address, report=False
            )
            wait_for(lambda: list((tmp_path / "out").glob(".*-unfinished")))
            os.kill(pids[0], signal.SIGKILL)
            summary = running.result(timeout=240)
    assert summary["status"].tolist() == ["done"] * 4
    assert not list((tmp_path / "out").glob(".*"))
    alone = run_batch([images / "copy0.tif"], tmp_path / "alone", RECIPE, workers=0, report=False)
    assert alone["columns"][0] == summary["columns"][0]
    for name in ("defects.csv", "atoms.csv"):
        one, other = (tmp_path / o / "copy0" / name for o in ("out", "alone"))
        assert one.read_bytes() == other.read_bytes()


def batch_command(images, out, recipe, *more):
    code = "from napari_defects.cli import main; main()"
    return [sys.executable, "-c", code, "batch", str(images), "-o", str(out), "--recipe", str(recipe), *more]


@pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")
def test_a_run_that_is_killed_goes_on(folder, tmp_path):
    images, recipe, out = many(folder, 4), tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(nd.Recipe(RECIPE).to_toml())
    run = subprocess.Popen(batch_command(images, out, recipe, "--workers", "1"), start_new_session=True)
    wait_for(lambda: list(out.glob("copy*")))
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    finished = {place.name: (place / "log.txt").stat().st_mtime_ns for place in out.glob("copy*")}
    assert 1 <= len(finished) < 4
    summary = run_batch([images], out, RECIPE, workers=0)
    assert (summary["status"] == "kept").sum() == len(finished)
    assert {name: (out / name / "log.txt").stat().st_mtime_ns for name in finished} == finished
    assert not list(out.glob(".*"))
    assert summary["columns"].notna().all()
    assert len(Dataset(out).table("atoms")) == summary["columns"].sum()


@pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")
def test_a_full_disk_is_named_and_what_was_there_stays(done, folder, tmp_path):
    out, recipe = tmp_path / "out", tmp_path / "recipe.toml"
    shutil.copytree(done[0], out)
    shutil.rmtree(out / "image1")
    recipe.write_text(nd.Recipe(RECIPE).to_toml())
    before = (out / "image0" / "atoms.csv").read_bytes()
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)); "
    command = batch_command(folder, out, recipe, "--workers", "0")
    command[2] = limited + command[2]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode in (1, 2)
    assert "Traceback" not in run.stderr
    assert "image1.tif" in run.stderr
    assert "cannot be written" in run.stderr
    assert (out / "image0" / "atoms.csv").read_bytes() == before
    assert not (out / "image1").exists()
    assert run_batch([folder], out, RECIPE, workers=0)["status"].tolist() == ["failed", "kept", "done"]


def test_a_scheduler_that_is_lost_ends_the_run_in_words(folder, tmp_path):
    images = many(folder, 4)
    code = (
        "from distributed import LocalCluster; import time\n"
        "if __name__ == '__main__':\n"
        "    c = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50)\n"
        "    print(c.scheduler_address, flush=True); time.sleep(600)"
    )
    script = tmp_path / "cluster.py"
    script.write_text(code)
    cluster = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        address = cluster.stdout.readline().strip()
        with ThreadPoolExecutor(1) as pool:
            out = tmp_path / "out"
            running = pool.submit(run_batch, [images], out, RECIPE, scheduler=address, report=False)
            wait_for(lambda: list(out.glob("copy*")))
            os.killpg(cluster.pid, signal.SIGKILL)
            summary = running.result(timeout=120)
    finally:
        if cluster.poll() is None:
            os.killpg(cluster.pid, signal.SIGKILL)
        cluster.wait()
    lost = summary[summary["status"] == "failed"]
    assert len(lost)
    assert lost["error"].str.contains("scheduler was lost").all()
    again = run_batch([images], out, RECIPE, workers=0)
    assert set(again["status"]) <= {"done", "kept"}
    assert not list(out.glob(".*"))


def test_what_cannot_run_is_refused_before_anything_is_written(folder, tmp_path):
    out, file = tmp_path / "out", tmp_path / "file"
    file.touch()
    for paths, place, words, keywords in (
        ([folder], out, "`workers` must be a whole number, 0 or more, got -3", {"workers": -3}),
        ([folder], out, "leave out `workers` or `scheduler`", {"workers": 0, "scheduler": "tcp://nowhere:1"}),
        ([tmp_path / "nodir"], out, "no file or folder", {"workers": 0}),
        ([folder], file / "summary.csv", "cannot be written", {"workers": 0}),
        ([folder], file, "cannot be written", {"workers": 0}),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            run_batch(paths, place, RECIPE, **keywords)
    assert not out.exists()
