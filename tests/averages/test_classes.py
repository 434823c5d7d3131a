from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.averages.files import read_averages, write_averages
from napari_defects.averages.registration import Patches, make_template
from napari_defects.crystals import WSE2
from napari_defects.lattice import Lattice
from napari_defects.simulation import Relaxation, Scan

NEAREST = WSE2.nearest_neighbor_nm


def simulate(seed: int = 0, n: int = 30, relaxation: Relaxation | None = None, **changes):
    options = {"field_of_view_nm": 14.0, "pixel_size_nm": 0.018, "dose_e_per_A2": 1e5, "seed": seed} | changes
    relaxed = {} if relaxation is None else {"V_Se": relaxation}
    micrograph, sites = nd.simulate("WSe2", defects={"V_Se": n}, relaxation=relaxed, **options)
    sites.attrs["crystal"] = "WSe2"
    return micrograph, sites, micrograph.metadata["defects"]


def radial(table, sublattices=("W", "Se")) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, radial displacement and its error of the columns measured."""
    rows = table[table["uy_pm"].notna() & table["sublattice"].isin(sublattices)]
    x = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    r = np.linalg.norm(x, axis=1)
    keep = r > 0.05
    x, r, rows = x[keep], r[keep], rows[keep]
    n = x / r[:, None]
    u, err = rows[["uy_pm", "ux_pm"]].to_numpy(), rows[["uy_err_pm", "ux_err_pm"]].to_numpy()
    return r, (n * u).sum(1), np.sqrt((n**2 * err**2).sum(1))


@pytest.fixture(scope="module")
def still():
    return simulate(scan=Scan(rotation_deg=12.0))


@pytest.fixture(scope="module")
def vacancy(still):
    micrograph, sites, defects = still
    return nd.average(micrograph, defects, sites=sites)["V_Se"]


def test_average_shows_the_vacancy_in_the_crystals_frame(vacancy):
    image, half = vacancy.image, len(vacancy.image) // 2
    assert image.shape == (2 * half + 1,) * 2
    assert np.isfinite(image).all()
    assert vacancy.n == vacancy.members["accepted"].sum() > 15
    assert vacancy.counts[half, half] == pytest.approx(vacancy.n, rel=0.05)
    row = image[half]
    neighbor = round(WSE2.a_nm / vacancy.pixel_size_nm)
    assert row[half] < 0.65 * row[half + neighbor]  # along a1, the next Se2
    below, above = (
        image[half + round(NEAREST / vacancy.pixel_size_nm), half],
        image[half - round(NEAREST / vacancy.pixel_size_nm), half],
    )
    assert max(above, below) > 3 * min(above, below)  # W on one side only


def test_half_sets_are_halves_and_precision_falls_as_the_root_of_n(vacancy):
    mean = (vacancy.half[0] + vacancy.half[1]) / 2
    assert np.abs(mean - vacancy.image).max() < 0.1 * np.ptp(vacancy.image)
    noise = np.std(vacancy.half[0] - vacancy.half[1]) / 2
    assert noise == pytest.approx(np.sqrt(vacancy.image.mean() / vacancy.n), rel=0.35)
    curve = vacancy.precision[vacancy.precision["sublattice"] == "W"]
    scaled = curve["precision_pm"] * np.sqrt(curve["n"])
    assert scaled.max() < 2 * scaled.min()
    assert (curve["precision_pm"] / curve["bound_pm"]).mean() == pytest.approx(1, abs=0.2)


def test_unrelaxed_vacancy_shows_no_field_and_errors_are_true(vacancy):
    table = vacancy.strain()
    r, u, err = radial(table)
    assert np.sqrt(np.mean((u / err) ** 2)) == pytest.approx(1, abs=0.25)
    shell = r < 0.25  # the tails of the missing atom: half a picometre if columns were Gaussians
    assert abs(u[shell].mean()) < 3 * err[shell].mean() / np.sqrt(3)
    assert err.mean() < 0.4
    fit = nd.fit_eshelby(table)
    assert abs(fit.c_nm2) < 3.5 * fit.c_err_nm2
    assert fit.p_value > 1e-3


@pytest.mark.parametrize("species", ["V2_Se", "V_W"])
def test_errors_are_true_around_an_empty_centre(species: str):
    options = {"field_of_view_nm": 12.0, "pixel_size_nm": 0.02, "dose_e_per_A2": 1e5, "seed": 4}
    micrograph, sites = nd.simulate("WSe2", defects={species: 16}, **options)
    one = nd.average(micrograph, micrograph.metadata["defects"], sites=sites)[species]
    _, u, err = radial(one.strain())
    assert np.sqrt(np.mean((u / err) ** 2)) == pytest.approx(1, abs=0.35)
    assert (one.precision["precision_pm"] / one.precision["bound_pm"]).max() < 2


def test_planted_field_comes_back_by_shells():
    relaxation = Relaxation(-4.0, wavelength_nm=0.7, decay_nm=1.0)
    sets = [simulate(seed, 18, relaxation, scan=Scan(rotation_deg=40.0 * seed)) for seed in range(2)]
    micrographs, sites, defects = zip(*sets, strict=True)
    found = nd.average(micrographs, defects, sites=sites)["V_Se"]
    assert found.n > 18
    r, u, err = radial(found.strain())
    planted = 1000 * relaxation(r, NEAREST)
    for distance in np.unique(r.round(3)):
        shell = np.abs(r - distance) < 2e-3
        tolerance = 0.3 + 2 * np.sqrt((err[shell] ** 2).sum()) / shell.sum()
        assert abs(u[shell].mean() - planted[shell].mean()) < tolerance, f"{distance} nm"
    assert np.corrcoef(u, planted)[0, 1] > 0.9
    assert nd.fit_eshelby(found.strain()).oscillation.p_value < 1e-3


def test_images_of_any_rotation_pixel_size_and_scale_are_pooled(still, vacancy):
    first, sites, defects = still
    other, other_sites, other_defects = simulate(7, pixel_size_nm=0.022, scan=Scan(rotation_deg=72.0))
    scaled = nd.Micrograph(other.data * 0.01 + 5, other.pixel_size_nm)
    pooled = nd.average([first, scaled], [defects, other_defects], sites=[sites, other_sites])["V_Se"]
    accepted = pooled.members[pooled.members["accepted"]]
    assert set(accepted["micrograph"]) == {0, 1}
    assert pooled.pixel_size_nm == 0.018
    assert np.abs(pooled.image - vacancy.image).max() < 0.15 * np.ptp(vacancy.image)
    _, u, err = radial(pooled.strain())
    assert np.sqrt(np.mean((u / err) ** 2)) < 1.35
    assert err.mean() < 0.85 * radial(vacancy.strain())[2].mean()


def test_symmetrization_gains_precision(still, vacancy):
    micrograph, sites, defects = still
    symmetric = nd.average(micrograph, defects, sites=sites, symmetrize=True)["V_Se"]
    assert symmetric.copies == 6
    assert symmetric.n == vacancy.n
    image = symmetric.image
    assert np.abs(image - image[:, ::-1]).max() < 0.02 * np.ptp(image)  # a mirror lies along the W
    gain = radial(vacancy.strain(), ["W"])[2].mean() / radial(symmetric.strain(), ["W"])[2].mean()
    assert 1.7 < gain < 3.2
    fit = nd.fit_eshelby(symmetric.strain())
    assert 0.3 < fit.chi2 / fit.dof < 3
    center = (symmetric.sites[["y_ideal_nm", "x_ideal_nm"]].pow(2).sum(axis=1) < 1e-6).to_numpy()
    alone = nd.strain(nd.deformation.displacements(vacancy.sites))["dilation_err"].to_numpy()[center]
    mirrored = symmetric.strain()["dilation_err"].to_numpy()[center]
    assert mirrored == pytest.approx(alone, rel=0.35), "six neighbours that are copies say no more than one does"


def test_members_say_why_they_are_left_out(still):
    micrograph, sites, defects = still
    spoiled = micrograph.data.copy()
    keep = nd.average(micrograph, defects, sites=sites)["V_Se"].members
    victim = keep[keep["accepted"]].iloc[0]
    y, x = (int(victim[k] / 0.018) for k in ("y_nm", "x_nm"))
    spoiled[y - 30 : y + 31, x - 30 : x + 31] = spoiled.mean()
    members = nd.average(nd.Micrograph(spoiled, 0.018), defects, sites=sites)["V_Se"].members
    assert len(members) == len(defects)
    assert members.set_index("defect").loc[victim["defect"], "reason"] == "low correlation"
    assert (members["reason"] == "").equals(members["accepted"])
    assert "another defect nearby" in set(members["reason"])
    border = np.minimum(members[["y_nm", "x_nm"]].min(axis=1), 14 - members[["y_nm", "x_nm"]].max(axis=1))
    assert (members.loc[border < 0.3, "reason"] != "").all()
    assert (members["half"] == -1).equals(~members["accepted"])


def test_no_more_members_than_asked_for_are_taken_evenly_from_all_images(still):
    micrograph, sites, defects = still
    images, tables = [micrograph, micrograph], [defects, defects.iloc[:10]]
    some = nd.average(images, tables, sites=[sites, sites], rounds=1, max_members=12)["V_Se"]
    taken = ~some.members["reason"].isin(["enough others", "another defect nearby", "off the lattice"])
    assert taken.sum() == 12, "those ruled out by where they lie take nobody's place"
    assert taken.groupby(some.members["micrograph"]).sum().tolist() == [8, 4]
    assert some.n <= 12
    with pytest.raises(ValueError, match="max_members"):
        nd.average(micrograph, defects, max_members=0)


def test_averages_come_back_from_files(vacancy, tmp_path):
    write_averages({"V_Se": vacancy}, tmp_path)
    back = read_averages(tmp_path)["V_Se"]
    assert back.crystal == vacancy.crystal
    assert back.parts == vacancy.parts
    np.testing.assert_array_equal(back.image, vacancy.image)
    np.testing.assert_array_equal(back.draws(5), vacancy.draws(5))
    pd.testing.assert_frame_equal(back.strain(), vacancy.strain(), check_dtype=False)
    assert back.members_for().equals(vacancy.members_for())


def test_registration_follows_the_image_not_the_lattice(still):
    micrograph, sites, defects = still
    moved = sites.copy()
    rng = np.random.default_rng(0)
    jolt = rng.normal(0, 0.006, (len(defects), 2))
    for k, row in defects.reset_index(drop=True).iterrows():
        near = np.hypot(sites["y_ideal_nm"] - row["y_nm"], sites["x_ideal_nm"] - row["x_nm"]) < 1.0
        moved.loc[near, ["y_ideal_nm", "x_ideal_nm"]] = sites.loc[near, ["y_ideal_nm", "x_ideal_nm"]] + jolt[k]
    members = nd.average(micrograph, defects, sites=moved)["V_Se"].members
    alone = members["accepted"].to_numpy()
    truth = defects[["y_nm", "x_nm"]].to_numpy()
    error = 1000 * (members[["y_nm", "x_nm"]].to_numpy() - truth)[alone]
    error -= np.median(error, axis=0)
    assert 1.4826 * np.median(np.abs(error)) < 0.6  # of 6 pm
    assert members.loc[alone, "shift_err_pm"].median() < 0.4


def test_lattice_pristine_and_bare_positions(still, vacancy):
    micrograph, sites, defects = still
    turn = np.deg2rad(12.0)
    # (y, x) rows; the crystal turned from x towards y or back, whichever the sites say
    from napari_defects.deformation import cell

    vectors, origins = cell(sites)
    lattice = Lattice(WSE2, origins["W"] - np.array([1, 2]) / 3 @ vectors, *vectors)
    assert abs(lattice.rotation_deg) == pytest.approx(np.rad2deg(turn), abs=0.01)
    by_lattice = nd.average(micrograph, defects, lattice=lattice)["V_Se"]
    assert np.abs(by_lattice.image - vacancy.image).max() < 0.05 * np.ptp(vacancy.image)
    pristine = nd.average(micrograph, defects, sites=sites, species=["pristine:Se"])["pristine:Se"]
    assert pristine.n > 20
    center = pristine.sites.loc[(pristine.sites["i"] == 0) & (pristine.sites["j"] == 0)].set_index("sublattice")
    assert center.loc["Se", "amplitude"] == pytest.approx(
        pristine.sites.query("sublattice == 'Se'")["amplitude"].median(), rel=0.03
    )
    against = vacancy.strain(reference=pristine)
    assert against["uy_err_pm"].mean() > vacancy.strain()["uy_err_pm"].mean()
    bare = nd.average(micrograph, defects, radius_nm=0.6)["V_Se"]
    assert len(bare.sites) == 0
    assert bare.n > 10
    assert len(bare.strain()) == 0


def test_grains_turned_by_180_degrees_come_together(still, vacancy):
    micrograph, sites, defects = still
    extent = micrograph.extent_nm - np.asarray(micrograph.pixel_size_yx_nm)
    turned = nd.Micrograph(micrograph.data[::-1, ::-1].copy(), micrograph.pixel_size_nm)
    other_sites, other_defects = sites.copy(), defects.copy()
    other_sites.attrs = sites.attrs
    for table, names in (
        (other_sites, ("y_ideal_nm", "x_ideal_nm")),
        (other_sites, ("y_nm", "x_nm")),
        (other_defects, ("y_nm", "x_nm")),
    ):
        table[list(names)] = extent - table[list(names)].to_numpy()
    both = nd.average([micrograph, turned], [defects, other_defects], sites=[sites, other_sites])["V_Se"]
    assert both.n == 2 * vacancy.n
    np.testing.assert_allclose(both.image, vacancy.image, atol=0.02 * np.ptp(vacancy.image))


def test_graphene_vacancies_of_both_sublattices_agree():
    micrograph, sites = nd.simulate(
        "graphene", defects={"Si1C3": 10}, field_of_view_nm=9.0, pixel_size_nm=0.012, dose_e_per_A2=2e6, seed=2
    )  # fmt: skip
    sites.attrs["crystal"] = "graphene"
    found = nd.average(micrograph, micrograph.metadata["defects"], sites=sites, radius_nm=0.6, isolation_nm=0.3)[
        "Si1C3"
    ]
    half = len(found.image) // 2
    assert found.n >= 4
    window = found.image[half - 3 : half + 4, half - 3 : half + 4]
    assert window.mean() > 2 * found.image.mean()
    flipped = found.image[::-1, ::-1]
    turned = np.roll(found.image, 0)
    assert np.corrcoef(turned.ravel(), flipped.ravel())[0, 1] < 0.98


@pytest.mark.parametrize("peak", [5, 50, 1000])
def test_registration_reaches_the_bound(peak: int):
    a, sigma, step, side = 0.329, 0.065, 0.0156, 64
    rng = np.random.default_rng(1)

    def patch(shift: np.ndarray, n: int = side) -> np.ndarray:
        y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * step
        image = np.full((n, n), 0.1)
        for i in range(-6, 7):
            for j in range(-6, 7):
                for fraction, height in ((0.0, 0.6), (1 / 3, 1.0)):
                    at = (i + fraction) * np.array([0, a]) + (j - fraction) * np.array([a * 0.75**0.5, -a / 2])
                    height = 0.3 if i == j == fraction == 0 else height
                    image += height * np.exp(
                        -((y - at[0] - shift[0]) ** 2 + (x - at[1] - shift[1]) ** 2) / 2 / sigma**2
                    )
        return peak * image

    template = make_template(patch(np.zeros(2), side + 9), 0.0, (0.0, 1.0))
    shifts = rng.uniform(-0.5, 0.5, (6, 2)) * step
    clean = [patch(s) for s in shifts]
    slope_y, slope_x = np.gradient(clean[0])
    bound = np.array([np.sqrt(1 / (s**2 / clean[0]).sum()) for s in (slope_y, slope_x)])
    errors = []
    for k in range(180):
        image = rng.poisson(clean[k % 6]).astype(np.float32)
        pose = np.array([[0.0, 0, 1, 0, 0]])
        alone = Patches(np.full((1, 2), (side - 1) / 2), np.eye(2)[None], [np.zeros((0, 2))], 1.0)
        found, _ = alone.register(image, template, side // 2, pose)
        errors.append(pose[0, :2] - shifts[k % 6] / step)
    assert np.sqrt(np.mean((np.array(errors) / bound) ** 2)) < 1.1
    assert found[0, 2] == pytest.approx(bound[0], rel=0.1)


def test_rotation_is_found_when_asked_for():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(61, 61)), 0), 1)
    template = make_template(100 + 30 * (smooth - smooth.mean()) / smooth.std(), 1.0)
    y, x = np.mgrid[:61, :61] - 30.0
    angle = 0.01
    uy, ux = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    from scipy.ndimage import map_coordinates

    image = map_coordinates(template.table[::2, ::2, 0], [uy + 30, ux + 30], order=3, mode="nearest").astype(np.float32)
    pose = np.array([[0.0, 0, 1, 0, 0]])
    Patches(np.full((1, 2), 30.0), np.eye(2)[None], [np.zeros((0, 2))], 1.0).register(
        image, template, 24, pose, steps=8, rotation=True
    )
    assert pose[0, 4] == pytest.approx(angle, abs=3e-4)


def test_progress_runs_to_its_total_and_may_cancel(still):
    micrograph, sites, defects = still
    seen = []
    nd.average(micrograph, defects, sites=sites, radius_nm=0.5, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] >= len(seen) - 1

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nd.average(micrograph, defects, sites=sites, progress=stop)


def test_bad_input_and_empty_classes(still, caplog):
    micrograph, sites, defects = still
    with pytest.raises(ValueError, match="one per micrograph"):
        nd.average([micrograph, micrograph], defects, sites=sites)
    with pytest.raises(ValueError, match="radius_nm"):
        nd.average(micrograph, defects, radius_nm=0.01)
    with pytest.raises(ValueError, match="pixel_size_nm"):
        nd.average(nd.Micrograph(micrograph.data), defects)
    with pytest.raises(ValueError, match="classify"):
        nd.average(micrograph, sites)
    with pytest.raises(ValueError, match="`sites` must be given"):
        nd.average(micrograph, defects, species=["pristine:W"])
    assert nd.average(micrograph, defects, species=["V_W"]) == {}
    assert "V_W" in caplog.text
    one = nd.average(micrograph, defects.iloc[[12]], sites=sites)
    assert all(found.n == 1 for found in one.values())


def test_sites_are_checked_and_may_have_any_index(still):
    micrograph, sites, defects = still
    here = defects.iloc[:8]
    plain = nd.average(micrograph, here, sites=sites, rounds=1)["V_Se"]
    odd = sites.astype({"y_nm": object})
    odd.index = pd.Index([0] * len(odd), name="frame")
    again = nd.average(micrograph, here, sites=odd, rounds=1, species="V_Se, Te_Se")["V_Se"]
    assert np.array_equal(plain.image, again.image)
    for wrong, message in (
        (pd.concat([sites, sites[:2]]), "list a site twice"),
        (sites.assign(y_nm=np.inf), "infinite"),
        (sites.drop(columns="i"), "column.s. i missing"),
    ):
        with pytest.raises(ValueError, match=message):
            nd.average(micrograph, here, sites=wrong)


@pytest.mark.parametrize("wrong", [
    {"pixel_size_nm": 0}, {"pixel_size_nm": np.nan}, {"clusters_nm": -1}, {"min_coverage": 2}, {"radius_nm": 50},
    {"min_coverage": np.nan}, {"rounds": 0}, {"max_strain": -1}, {"species": "V_Q"}, {"species": ["odd one"]},
])  # fmt: skip
def test_what_an_average_cannot_be_made_with_is_named(still, wrong):
    micrograph, sites, defects = still
    with pytest.raises(ValueError, match="|".join([f"`{next(iter(wrong))}` must be", "no site 'Q'"])):
        nd.average(micrograph, defects, sites=sites, **wrong)
