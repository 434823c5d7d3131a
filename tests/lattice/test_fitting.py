"""Lattices: found, fitted, turned the right way, and followed through distortion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

import napari_defects as nd
from napari_defects.crystals import get_crystal
from napari_defects.lattice import (
    Lattice,
    assign_sites,
    calibrate,
    fit_grains,
    fit_lattice,
    sublattice_intensities,
)
from napari_defects.lattice.reciprocal import find_period
from napari_defects.simulation.probe import Microscope
from napari_defects.simulation.scattering import cross_section_A2


def planted(
    name: str = "WSe2",
    side_nm: float = 8.0,
    *,
    rotation_deg: float = 17.0,
    shape: object = 1.0,
    scatter_nm: float = 0.003,
    drift_nm: float = 0.0,
    missing: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> pd.DataFrame:
    """Atoms of a crystal with known indices `ti`, `tj` and sublattice `truth`; `shape` scales or deforms (y, x)."""
    rng = np.random.default_rng(seed)
    crystal = get_crystal(name)
    turn = np.deg2rad(rotation_deg)
    basis = crystal.vectors_nm @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    basis = basis @ (np.asarray(shape, float) * np.eye(2) if np.ndim(shape) == 0 else np.asarray(shape, float))
    n = int(2.5 * side_nm / np.linalg.norm(basis, axis=1).min()) + 4
    i, j = (k.ravel() for k in np.mgrid[-n:n, -n:n])
    parts = []
    for sublattice, gone in zip(crystal.sublattices, missing, strict=True):
        at = (np.column_stack([i, j]) + np.array([sublattice.u, sublattice.v])) @ basis
        at = at + drift_nm * np.column_stack([np.sin(at[:, 0] * 8.2 / side_nm + 1), np.cos(at[:, 0] * 5.6 / side_nm)])
        at = at + rng.normal(0, scatter_nm, at.shape)
        keep = ((at > 0) & (at < side_nm)).all(1) & (rng.random(len(at)) >= gone)
        amplitude = cross_section_A2(sublattice.column, Microscope()) * rng.normal(1, 0.05, len(at))
        parts.append(
            pd.DataFrame(
                {
                    "frame": 0,
                    "y_nm": at[:, 0],
                    "x_nm": at[:, 1],
                    "y_err_nm": scatter_nm,
                    "x_err_nm": scatter_nm,
                    "sigma_nm": 0.06,
                    "amplitude": amplitude,
                    "amplitude_err": 0.05 * amplitude,
                    "background": 0.0,
                    "score": 1.0,
                    "ti": i,
                    "tj": j,
                    "truth": sublattice.name,
                }
            )[keep]
        )
    return pd.concat(parts).sample(frac=1, random_state=seed).reset_index(drop=True)


def right(sites: pd.DataFrame) -> float:
    """Share of atoms on their true sublattice, whose indices differ from the truth as everybody's do."""
    on = sites[sites["i"].notna() & sites["y_nm"].notna()]
    shift = on["i"].astype(int) - on["ti"].astype(int), on["j"].astype(int) - on["tj"].astype(int)
    consistent = (shift[0] == shift[0].mode()[0]) & (shift[1] == shift[1].mode()[0])
    turned = len(set(zip(*shift, strict=True))) > 1  # by 120 degrees: indices are others, sublattices are not
    same = on["sublattice"] == on["truth"]
    return float((same if turned else same & consistent).mean())


@pytest.mark.parametrize("name", ["WSe2", "MoTe2", "MoS2", "WTe2", "hBN"])
@pytest.mark.parametrize("rotation_deg", [0.0, 31.0, -160.0])
def test_sublattices_are_told_apart_at_any_rotation(name: str, rotation_deg: float) -> None:
    atoms = planted(name, rotation_deg=rotation_deg, side_nm=5.0)
    lattice = fit_lattice(atoms, name)
    assert right(assign_sites(atoms, lattice)) == 1.0
    assert lattice.scale == pytest.approx(1, abs=5e-4)
    assert (lattice.rotation_deg - rotation_deg + 60) % 120 - 60 == pytest.approx(0, abs=0.05)
    assert lattice.residual_pm == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("selenium", [1.1, 1.0])
def test_sublattices_as_bright_as_each_other(selenium: float, caplog: pytest.LogCaptureFixture) -> None:
    """At lower angles Se2 is as bright as W or brighter: the lattice says it cannot tell, and takes the user's word."""
    atoms = planted(side_nm=5.0)
    atoms.loc[atoms["truth"] == "Se", "amplitude"] *= selenium * 0.0485 / 0.0429
    fit_lattice(atoms, "WSe2")
    assert "which columns are W and which Se2 is not certain" in caplog.text
    caplog.clear()
    if selenium > 1:
        lattice = fit_lattice(atoms, "WSe2", brightest="Se")
        assert right(assign_sites(atoms, lattice)) == 1.0
    assert not caplog.text
    with pytest.raises(ValueError, match="no site 'S'"):
        fit_lattice(atoms, "WSe2", brightest="S")


def test_sublattices_of_different_brightness_are_beyond_doubt(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("WS2", "MoTe2", "graphene"):
        fit_lattice(planted(name, side_nm=5.0), name)
    assert not caplog.text


@pytest.mark.parametrize("scale", [0.6, 0.8, 1.25, 1.4])
def test_scale_far_from_the_crystals_is_reported(scale: float, caplog: pytest.LogCaptureFixture) -> None:
    lattice = fit_lattice(planted(shape=scale), "WSe2")
    assert lattice.scale == pytest.approx(scale, rel=1e-3)
    assert lattice.shear < 2e-3
    assert "pixel size" in caplog.text


@pytest.mark.parametrize("scale", [1.5, 2.0])
def test_a_lattice_with_two_thirds_of_its_sites_empty_is_none(scale: float) -> None:
    with pytest.raises(ValueError, match=r"hold one; are crystal and pixel size right \(calibrate"):
        fit_lattice(planted(shape=scale), "WSe2")


def test_strong_shear_by_drift() -> None:
    shape = np.array([[1.10, 0.06], [0.0, 0.94]])
    atoms = planted("MoS2", shape=shape)
    lattice = fit_lattice(atoms, "MoS2")
    stretch = np.linalg.svd(shape, compute_uv=False)
    assert lattice.shear == pytest.approx(stretch[0] / stretch[1] - 1, abs=2e-3)
    assert right(assign_sites(atoms, lattice)) == 1.0


def test_distortion_is_followed_and_taken_out() -> None:
    atoms = planted(side_nm=16.0, drift_nm=0.12, rotation_deg=40.0)
    lattice = fit_lattice(atoms, "WSe2")
    sites = assign_sites(atoms, lattice)
    assert right(sites) == 1.0
    assert lattice.residual_pm < 3.3  # 3.0 is the scatter, 100 the distortion
    points = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    found = np.column_stack(lattice.index(points))
    truth = sites[["i", "j"]].to_numpy(int)
    np.testing.assert_array_equal(found[:, :2], truth)


def test_a_defects_own_field_is_not_taken_for_distortion() -> None:
    atoms = planted(side_nm=10.0, scatter_nm=0.0005)
    apart = atoms[["y_nm", "x_nm"]].to_numpy() - 5.0
    distance = np.linalg.norm(apart, axis=1, keepdims=True)
    field = 0.004 * apart / (distance**2 + 0.1)  # 1/r, 6 pm at its strongest
    moved = atoms.assign(y_nm=atoms["y_nm"] + field[:, 0], x_nm=atoms["x_nm"] + field[:, 1])
    moved = moved[distance[:, 0] > 0.1]
    sites = assign_sites(moved, fit_lattice(moved, "WSe2")).dropna(subset=["y_nm"])
    seen = sites[["y_nm", "x_nm"]].to_numpy() - sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    apart = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy() - 5.0
    distance = np.linalg.norm(apart, axis=1, keepdims=True)
    core = (distance[:, 0] < 1.0) & (distance[:, 0] > 0.15)
    truth = 0.004 * apart / (distance**2 + 0.1)
    kept = (seen[core] * truth[core]).sum() / (truth[core] ** 2).sum()
    assert 0.85 < kept < 1.05


@pytest.mark.parametrize("missing", [(0.0, 0.4), (0.4, 0.0), (0.0, 0.97)])
def test_half_found_sublattice(missing: tuple[float, float]) -> None:
    atoms = planted(missing=missing)
    sites = assign_sites(atoms, fit_lattice(atoms, "WSe2"))
    assert right(sites) == 1.0
    number = sites["sublattice"].value_counts()
    assert number.min() / number.max() > 0.93  # but for the rim


def test_empty_sites_but_not_in_holes() -> None:
    atoms = planted(side_nm=10.0)
    middle = np.hypot(atoms["y_nm"] - 5, atoms["x_nm"] - 5)
    inner = atoms[["y_nm", "x_nm"]].sub(5).abs().max(axis=1) < 4.5
    gone = atoms[inner & (middle > 3)].sample(25, random_state=3)
    kept = atoms[(middle > 1.5) & ~atoms.index.isin(gone.index)]
    stray = kept.iloc[:1].assign(y_nm=5.0, x_nm=5.0)  # an atom in the hole, on no site to speak of
    lattice = fit_lattice(kept, "WSe2")
    where = lattice.position(*(np.atleast_1d(k) for k in lattice.index([[5.0, 5.0]])))[0]
    stray = stray.assign(y_nm=where[0] + 0.09, x_nm=where[1])
    sites = assign_sites(pd.concat([kept, stray], ignore_index=True), lattice)
    empty = sites[sites["y_nm"].isna()]
    truth = set(zip(gone["y_nm"].round(1), gone["x_nm"].round(1), strict=True))
    found = set(zip(empty["y_ideal_nm"].round(1), empty["x_ideal_nm"].round(1), strict=True))
    assert len(truth ^ found) <= 2
    off = sites[sites["i"].isna()]
    assert len(off) == 1
    assert off["sublattice"].tolist() == [""]
    assert sites.attrs["crystal"] == "WSe2"
    assert len(sites) == len(kept) + len(empty) + 1


@pytest.mark.parametrize(("share", "vacant"), [(0.2, True), (0.9, False)])
def test_dirt_beside_an_empty_site_is_no_atom_that_left_it(share: float, vacant: bool) -> None:
    atoms = planted(side_nm=8.0)
    metal = atoms[atoms["amplitude"] > atoms["amplitude"].median()]
    gone = metal[metal[["y_nm", "x_nm"]].sub(4).abs().max(axis=1) < 1.5].iloc[[0]]
    bump = gone.assign(y_nm=gone["y_nm"] + 0.09, x_nm=gone["x_nm"] + 0.08, amplitude=share * gone["amplitude"])
    kept = pd.concat([atoms.drop(gone.index), bump], ignore_index=True)
    sites = assign_sites(kept, fit_lattice(kept, "WSe2"))
    place = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float) - gone[["y_nm", "x_nm"]].to_numpy()
    there = np.hypot(*place.T) < 0.05
    assert (there & sites["y_nm"].isna().to_numpy()).sum() == int(vacant)


def test_movie_keeps_its_indices_from_frame_to_frame() -> None:
    first = planted("graphene", side_nm=3.0)
    frames = [first.assign(frame=n, y_nm=first["y_nm"] + 0.02 * n, x_nm=first["x_nm"] - 0.03 * n) for n in range(4)]
    lattice = fit_lattice(pd.concat(frames), "graphene")
    sites = assign_sites(pd.concat(frames), lattice)
    assert len(lattice.frames) == 4
    assert lattice.at(3).origin_nm - lattice.at(0).origin_nm == pytest.approx([0.06, -0.09], abs=2e-3)
    names = sites.dropna(subset=["y_nm"]).groupby(["ti", "tj", "truth"])[["i", "j", "sublattice"]].nunique()
    assert (names == 1).all().all()


def test_a_lattice_blurred_by_noise_is_found() -> None:
    """Graphene at low dose, a fifth of the atoms being noise; the same on a lattice of squares is none."""
    atoms = planted("graphene", side_nm=6.0, scatter_nm=0.018)
    rng = np.random.default_rng(1)
    stray = rng.choice(len(atoms), len(atoms) // 5, replace=False)
    atoms.loc[stray, ["y_nm", "x_nm"]] = rng.uniform(0, 6, (len(stray), 2))
    lattice = fit_lattice(atoms, "graphene")
    unknown = fit_lattice(atoms.assign(y_err_nm=np.nan, x_err_nm=np.nan), "graphene")  # positions of another program
    np.testing.assert_array_equal(unknown.vectors_nm, lattice.vectors_nm)
    truth = planted("graphene", side_nm=6.0, scatter_nm=1e-6)[["y_nm", "x_nm"]].to_numpy()
    off = truth - lattice.position(*lattice.index(truth))
    assert np.median(np.linalg.norm(off, axis=1)) < 0.01
    side = np.arange(0.07, 6, 0.142)
    square = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)[: len(atoms)]
    square = square + rng.normal(0, 0.018, square.shape)
    with pytest.raises(ValueError, match="no lattice of graphene found"):
        fit_lattice(atoms.iloc[: len(square)].assign(y_nm=square[:, 0], x_nm=square[:, 1]), "graphene")


def test_real_dumbbells_are_no_honeycomb(shared: Path) -> None:
    """Two thirds of these columns lie near its sites, but farther off than their errors say."""
    atoms = nd.locate(nd.read_micrograph(shared / "data" / "formats" / "HAADF26.dm3"))
    with pytest.raises(ValueError, match=r"no lattice of MoS2 found .* pm off it"):
        fit_lattice(atoms, "MoS2")


def test_no_lattice_is_said_clearly() -> None:
    atoms = planted()
    random = np.random.default_rng(0).uniform(0, 8, (len(atoms), 2))
    with pytest.raises(ValueError, match="no lattice of WSe2 found"):
        fit_lattice(atoms.assign(y_nm=random[:, 0], x_nm=random[:, 1]), "WSe2")
    with pytest.raises(ValueError, match="too few"):
        fit_lattice(atoms.iloc[:6], "WSe2")
    with pytest.raises(ValueError, match="empty"):
        fit_lattice(atoms.iloc[:0], "WSe2")
    with pytest.raises(ValueError, match="crystal"):
        fit_lattice(atoms, "kryptonite")
    with pytest.raises(ValueError, match=r"locate\(\)"):
        fit_lattice(atoms.drop(columns="amplitude"), "WSe2")
    with pytest.raises(ValueError, match="max_offset_nm"):
        assign_sites(atoms, fit_lattice(atoms, "WSe2"), max_offset_nm=0)


def test_positions_take_names_and_refuse_others() -> None:
    crystal = get_crystal("WSe2")
    lattice = Lattice(crystal, np.zeros(2), *crystal.vectors_nm)
    np.testing.assert_allclose(lattice.position([1], [2], ["Se"]), lattice.position([1], [2], [1]))
    assert lattice.scale == pytest.approx(1)
    assert lattice.rotation_deg == pytest.approx(0)
    with pytest.raises(ValueError, match="W, Se"):
        lattice.position([0], [0], ["Te"])


@pytest.mark.parametrize("stated", [None, 0.02, 0.03, (0.024, 0.02), (0.02, 0.032)])
def test_calibration_from_the_power_spectrum(stated: float | tuple[float, float] | None) -> None:
    true = np.array(stated) if isinstance(stated, tuple) else np.array([0.021, 0.021])
    image, _ = nd.simulate("WSe2", field_of_view_nm=8.0, pixel_size_nm=tuple(true), seed=5)
    found = calibrate(nd.Micrograph(image.data, stated), "WSe2")
    assert found.pixel_size_yx_nm == pytest.approx(true, rel=0.006)
    assert isinstance(found.pixel_size_nm, tuple) == isinstance(stated, tuple)
    assert found.metadata["stated_pixel_size_nm"] == stated


def test_noise_has_no_period() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert find_period([rng.poisson(20, (256, 256)).astype(float)], get_crystal("WSe2")) is None
    blurred = nd.Micrograph(ndimage.gaussian_filter(rng.normal(size=(256, 256)), 3), 0.02)
    with pytest.raises(ValueError, match="no lattice of WSe2 found"):
        calibrate(blurred, "WSe2")


def test_real_mos2(shared: Path) -> None:
    pixels = np.load(shared / "data" / "mos2" / "MoS2_stem_Exp-000-2.npy")
    image = calibrate(nd.Micrograph(pixels), "MoS2")
    assert image.pixel_size_nm == pytest.approx(9 / 512, rel=0.02)


def test_where_a_site_is_expected_has_an_error_that_is_true() -> None:
    pulls = []
    for seed in range(6):
        atoms = planted(side_nm=6.0, scatter_nm=0.004, seed=seed)
        exact = planted(side_nm=6.0, scatter_nm=0.0, seed=seed)
        lattice = fit_lattice(atoms, "WSe2")
        on = np.column_stack(lattice.index(exact[["y_nm", "x_nm"]].to_numpy()))
        off = lattice.position(*on.T) - exact[["y_nm", "x_nm"]].to_numpy()
        pulls.append(off / lattice.position_err(*on.T)[:, None])
    assert 0.75 < np.concatenate(pulls).std() < 1.3
    sites = assign_sites(atoms, lattice)
    assert sites["ideal_err_nm"].dropna().between(1e-5, 0.004).all()


def bicrystal(share: float = 0.5) -> pd.DataFrame:
    """Two grains that meet along a line, turned by 21 degrees against each other; `grain` says which."""
    first, second = planted(side_nm=9.0, rotation_deg=5.0), planted(side_nm=9.0, rotation_deg=26.0, seed=1)
    left = first[first["x_nm"] < 9 * share - 0.08].assign(grain=0)
    right_ = second[second["x_nm"] > 9 * share + 0.08].assign(grain=1)
    return pd.concat([left, right_], ignore_index=True)


@pytest.mark.parametrize("share", [0.5, 0.65, 0.3])
def test_two_grains_have_a_lattice_each(share: float, caplog: pytest.LogCaptureFixture) -> None:
    atoms = bicrystal(share)
    grains = fit_grains(atoms, "WSe2")
    assert len(grains) == 2
    for lattice, own in grains:
        (number, most), *_ = own["grain"].value_counts().items()
        assert most / len(own) > 0.99
        assert most / (atoms["grain"] == number).sum() > 0.9
        wanted = (5.0, 26.0)[int(number)]
        assert (lattice.rotation_deg - wanted + 60) % 120 - 60 == pytest.approx(0, abs=0.1)
        assert lattice.residual_pm < 3.6
    lattice = fit_lattice(atoms, "WSe2")
    assert "fit_grains()" in caplog.text
    turns = [(lattice.rotation_deg - wanted + 60) % 120 - 60 for wanted in (5.0, 26.0)]
    assert min(np.abs(turns)) < 0.3


def test_one_grain_is_one() -> None:
    assert len(fit_grains(planted(), "WSe2")) == 1
    with pytest.raises(ValueError, match="`most` must be a whole number, 1 or more"):
        fit_grains(planted(), "WSe2", most=0)


def test_intensities_of_the_sublattices() -> None:
    atoms = planted(side_nm=6.0)
    table = sublattice_intensities(assign_sites(atoms, fit_lattice(atoms, "WSe2")))
    column = {s.name: s.column for s in get_crystal("WSe2").sublattices}
    sizes = [cross_section_A2(column[name], Microscope()) for name in table["sublattice"]]
    assert table["ratio"][1] == pytest.approx(sizes[1] / sizes[0], abs=4 * table["ratio_err"][1])
    assert 0.001 < table["ratio_err"][1] < 0.02


@pytest.mark.parametrize("crystal", ["graphene", "WSe2"])
def test_blank_frames_of_a_movie_are_left_out_of_the_calibration(crystal: str) -> None:
    image, _ = nd.simulate(crystal, field_of_view_nm=5.0, pixel_size_nm=0.02, dose_e_per_A2=1e6, seed=3)
    blank = np.full_like(image.frame(), np.nan)
    movie = calibrate(nd.Micrograph(np.stack([blank, image.frame(), 0 * blank, image.frame()]), 0.021), crystal)
    assert movie.pixel_size_nm == pytest.approx(0.02, rel=0.004)
    with pytest.raises(ValueError, match="every frame is blank"):
        calibrate(nd.Micrograph(np.zeros((2, 64, 64), np.float32)), crystal)


def test_a_lattice_takes_no_points_one_index_for_all_and_refuses_what_is_no_place():
    lattice = Lattice(get_crystal("WSe2"), np.zeros(2), *get_crystal("WSe2").vectors_nm)
    assert [len(k) for k in lattice.index([])] == [0, 0, 0]
    assert np.array_equal(lattice.position([0, 1, 2], 0, "W"), lattice.position([0, 1, 2], [0] * 3, ["W"] * 3))
    for wrong in ([[np.nan, 1.0]], [[np.inf, 1.0]], [[1.0, 2.0, 3.0]]):
        with pytest.raises(ValueError, match="`points_nm` must be finite places"):
            lattice.index(wrong)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match="`sublattice` must be 0 to 1 or a name"):
            lattice.position(0, 0, wrong)


def test_atoms_farther_apart_than_in_any_image_are_refused():
    atoms = planted()
    lattice = fit_lattice(atoms, "WSe2")
    atoms[["y_nm", "x_nm"]] *= 1e6
    with pytest.raises(ValueError, match=r"`atoms` lie .* apart, as in no image"):
        assign_sites(atoms, lattice)
