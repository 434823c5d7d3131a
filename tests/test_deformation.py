from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import sites_of

import napari_defects as nd
from napari_defects import WSE2, deformation
from napari_defects.lattice import Lattice

COMPONENTS = ["eyy", "exx", "exy", "dilation", "rotation_rad"]
ERRORS = ["eyy_err", "exx_err", "exy_err", "dilation_err", "rotation_err_rad"]
GRADIENT = np.array([[0.011, -0.004], [0.007, 0.003]])  # (duy/dy, duy/dx; dux/dy, dux/dx)


def uniform(x: np.ndarray) -> np.ndarray:
    return 1000 * x @ GRADIENT.T


def test_uniform_strain_is_exact_everywhere_and_turns_with_the_frame():
    sites = sites_of(field_pm=uniform, sigma_pm=1e-9)
    result = deformation.strain(deformation.displacements(sites, fit="none"))
    inner = result["exx"].notna()
    assert inner.mean() > 0.7
    expected = [0.011, 0.003, 0.0015, 0.014, (-0.004 - 0.007) / 2]
    np.testing.assert_allclose(result.loc[inner, COMPONENTS], np.tile(expected, (inner.sum(), 1)), atol=1e-9)
    angle = 25.0
    turned = deformation.strain(deformation.displacements(sites, fit="none"), frame_deg=angle)[inner].iloc[0]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    axis = np.array([s, c])  # the new x axis, (y, x): from x towards y
    e = (GRADIENT + GRADIENT.T) / 2
    assert turned["exx"] == pytest.approx(axis @ e @ axis, abs=1e-9)
    assert turned["dilation"] == pytest.approx(0.014, abs=1e-9)
    assert turned["rotation_rad"] == pytest.approx(expected[-1], abs=1e-9)


@pytest.mark.parametrize(("neighbors", "factor"), [(3, 0.5), (6, 3), (18, 24)])
def test_errors_have_the_textbook_size_and_are_those_of_repetition(neighbors: int, factor: float):
    sigma, a = 0.3, WSE2.a_nm
    runs = [
        nd.strain(deformation.displacements(sites_of(sigma_pm=sigma, seed=k), fit="none"), neighbors=neighbors)
        for k in range(60)
    ]
    center = runs[0][["y_ideal_nm", "x_ideal_nm"]].pow(2).sum(axis=1) < 0.8**2
    expected = sigma / 1000 / a / np.sqrt(factor)
    scale = np.array([1, 1, 1 / np.sqrt(2), np.sqrt(2), 1 / np.sqrt(2)]) * expected
    np.testing.assert_allclose(runs[0].loc[center, ERRORS].mean(), scale, rtol=1e-6)
    spread = np.stack([run.loc[center, COMPONENTS].to_numpy() for run in runs]).std(0).mean(0)
    np.testing.assert_allclose(spread, scale, rtol=0.06)


def test_pulls_are_unit_normal_even_at_the_edge_and_beside_a_vacancy():
    pulls = []
    for seed in range(40):
        result = nd.strain(sites_of(sigma_pm=1.0, center="Se", seed=seed))
        pulls.append(result[COMPONENTS].to_numpy() / result[ERRORS].to_numpy())
    stack = np.stack(pulls)
    assert np.nanstd(stack, axis=(0, 1)) == pytest.approx(1, abs=0.05)
    vacancy = result["y_nm"].isna()
    assert vacancy.sum() == 1
    assert result.loc[vacancy, "exx"].notna().all()


def test_offset_of_a_sublattice_is_no_displacement():
    def shifted(x: np.ndarray) -> np.ndarray:
        return np.full_like(x, 7.0)

    sites = sites_of(field_pm=shifted, sigma_pm=0.1)
    se = sites["sublattice"] == "Se"
    sites.loc[se, "x_nm"] += 0.012
    u = nd.displacements(sites)[["uy_pm", "ux_pm"]].to_numpy()
    assert np.abs(u.mean(0)).max() < 0.05
    assert np.abs(u[se].mean(0)).max() < 0.05


def test_core_is_left_out_of_the_reference_and_affine_removes_a_uniform_strain():
    def core(x: np.ndarray) -> np.ndarray:
        return np.where(np.linalg.norm(x, axis=1, keepdims=True) < 0.5, 100.0, 0.0) * [1, 0]

    sites = sites_of(field_pm=lambda x: core(x) + uniform(x), sigma_pm=0.01, reach_nm=1.2)
    u = nd.displacements(sites, center_nm=(0, 0), fit="affine")
    far = u[["y_ideal_nm", "x_ideal_nm"]].pow(2).sum(axis=1) > 0.25
    assert u.loc[far, ["uy_pm", "ux_pm"]].abs().max().max() < 0.1
    assert u.loc[~far, "uy_pm"].mean() == pytest.approx(100, abs=0.1)
    with pytest.raises(ValueError, match="exclude_nm"):
        nd.displacements(sites, center_nm=(0, 0), exclude_nm=5)


def test_twin_takes_the_bias_off_and_adds_its_error():
    def bias(x: np.ndarray) -> np.ndarray:
        return 3 * np.sin(20 * x)

    twin = deformation.displacements(sites_of(field_pm=bias, sigma_pm=0.3, seed=1), fit="none")
    sites = sites_of(field_pm=lambda x: bias(x) + uniform(x), sigma_pm=0.4, seed=2)
    u = deformation.displacements(sites, fit="none", reference=twin)
    rest = u[["uy_pm", "ux_pm"]].to_numpy() - uniform(u[["y_ideal_nm", "x_ideal_nm"]].to_numpy())
    assert rest.std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(u["uy_err_pm"], 0.5, rtol=1e-9)


def test_a_lattice_replaces_the_ideal_positions_and_scan_distortion_is_no_strain():
    lattice = Lattice(WSE2, np.array([0.4, 0.3]), *(1.01 * WSE2.vectors_nm))
    sites = sites_of(sigma_pm=0.1)
    sites[["y_nm", "x_nm"]] = lattice.position(sites["i"], sites["j"], sites["sublattice"])
    result = nd.strain(sites, lattice)
    assert result[["uy_pm", "ux_pm"]].abs().max().max() < 1e-9
    seen = nd.strain(sites)  # against the sites' own, smaller, lattice
    assert seen["exx"].median() == pytest.approx(0.01, abs=1e-4)


def test_movie_frames_do_not_mix():
    first, second = sites_of(sigma_pm=0.1), sites_of(field_pm=uniform, sigma_pm=1e-6)
    movie = pd.concat([first, second.assign(frame=1)])
    movie.attrs = first.attrs
    result = nd.strain(movie)
    assert result.loc[result["frame"] == 1, "exx"].median() == pytest.approx(0.003, abs=1e-6)
    assert result.loc[result["frame"] == 0, "exx"].abs().median() < 1e-3
    assert len(result) == len(first) + len(second)


def test_unindexed_atoms_stay_without_strain():
    sites = sites_of(sigma_pm=0.1)
    stray = sites.iloc[[0]].assign(i=pd.NA, j=pd.NA, sublattice="", y_ideal_nm=np.nan, x_ideal_nm=np.nan)
    result = nd.strain(pd.concat([sites, stray.astype(sites.dtypes)]))
    assert len(result) == len(sites) + 1
    assert np.isnan(result["exx"].iloc[-1])
    assert result["exx"].notna().any()


def test_image_and_line_profile():
    result = nd.strain(deformation.displacements(sites_of(field_pm=uniform, sigma_pm=0.1, center="Se"), fit="none"))
    image = deformation.strain_image(result, "exx", (40, 50), 0.05, origin_nm=(-1.0, -1.2))
    assert image.shape == (40, 50)
    assert np.nanmean(image) == pytest.approx(0.003, abs=2e-4)
    profile = deformation.line_profile(result, "exx", (0, -1), (0, 1), width_nm=0.1)
    assert np.all(np.diff(profile.distance_nm) >= 0)
    assert np.mean((profile.value - 0.003) / profile.err) == pytest.approx(0, abs=1)
    binned = deformation.line_profile(result, "exx", (0, -1), (0, 1), width_nm=0.6, step_nm=0.5)
    assert len(binned.value) == 4
    assert np.all(binned.err < profile.err.min())
    assert list(deformation.line_profile(result, "ux_pm", (0, -1), (0, 1)).err > 0)
    assert list(binned.to_frame()) == ["distance_nm", "value", "err"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: nd.strain(t.drop(columns="i")), "assign_sites"),
        (lambda t: nd.strain(t, neighbors=5), "neighbors"),
        (lambda t: deformation.strain_image(t, "foo", (9, 9), 0.1), "component"),
        (lambda t: deformation.line_profile(t, "foo", (0, 0), (1, 1)), "component"),
        (lambda t: deformation.line_profile(t, "y_nm", (1, 1), (1, 1)), "longer line"),
        (lambda t: deformation.line_profile(t, "y_nm", [1], (1, 1)), "`start_nm` must be a place"),
        (lambda t: deformation.line_profile(t, "y_nm", (0, 0), (1, 1), width_nm=-1), "`width_nm` must be above 0"),
        (lambda t: deformation.line_profile(t, "y_nm", (0, 0), (1, 1), step_nm=0), "`step_nm` must be above 0"),
        (lambda t: deformation.strain_image(t, "y_nm", (9, 9), 0), "`pixel_size_nm` must be above 0"),
        (lambda t: nd.displacements(t, fit="afine"), "`fit` must be one of offsets, none, affine, got 'afine'"),
        (lambda t: nd.displacements(t, center_nm=[0.0]), "`center_nm` must be a place"),
        (lambda t: nd.radial_profile(nd.displacements(t), [0.0]), "`center_nm` must be a place"),
        (lambda t: nd.fit_eshelby(nd.displacements(t), [0.0]), "`center_nm` must be a place"),
        (lambda t: nd.fit_eshelby(nd.displacements(t), eigenstrain="any"), "`eigenstrain` must be one of"),
        (lambda t: nd.fit_eshelby(nd.displacements(t), background="none"), "`background` must be one of"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(sites_of(sigma_pm=0.1))


def test_radial_profile_by_shells():
    sites = sites_of(field_pm=lambda x: 20 * x + 5 * x[:, ::-1] * (1, -1), sigma_pm=0.3, center="Se")
    table = deformation.displacements(sites, fit="none")
    shells = deformation.radial_profile(table, reach_nm=1.2)
    assert shells["r_nm"].is_monotonic_increasing
    assert list(shells["columns"][:3]) == [3, 6, 3]
    pulls = [(shells["radial_pm"] - 20 * shells["r_nm"]) / shells["radial_err_pm"]]
    pulls.append((shells["turning_pm"] - 5 * shells["r_nm"]) / shells["turning_err_pm"])
    assert np.std(pulls) == pytest.approx(1, abs=0.35)
    assert len(deformation.radial_profile(table, reach_nm=0.05)) == 0


def test_theory_goes_through_the_same_code_wherever_the_defect_lies():
    build = pytest.importorskip("ase.build")
    atoms = build.mx2("WSe2", kind="2H", a=3.282, thickness=3.36, size=(7, 6, 1), vacuum=8)
    gone = next(k for k, s in enumerate(atoms.symbols) if s == "Se")  # in the corner of the cell
    delta = atoms.positions[:, :2] - atoms.positions[gone, :2]
    edges = atoms.cell.array[:2, :2]
    delta -= np.rint(delta @ np.linalg.inv(edges)) @ edges
    r = np.maximum(np.hypot(*delta.T)[:, None], 0.5)
    atoms.positions[:, :2] -= np.where(r > 0.5, 0.05 * np.exp(-r / 3) * delta / r, 0)
    del atoms[gone]
    table = nd.structure_strain(atoms, "WSe2")
    center = table[np.hypot(table["y_ideal_nm"], table["x_ideal_nm"]) < 0.01]
    assert center["elements"].tolist() == ["Se"]
    shells = deformation.radial_profile(table, reach_nm=0.7)
    np.testing.assert_allclose(shells["radial_pm"], -5 * np.exp(-shells["r_nm"] / 0.3), atol=0.4)
    assert table["dilation"].notna().sum() > 40
    with pytest.raises(ValueError, match="pristine"):
        nd.structure_strain(build.mx2("WSe2", kind="2H", a=3.282, thickness=3.36, size=(5, 5, 1), vacuum=8), "WSe2")


def test_a_file_that_is_no_structure_is_one_sentence(tmp_path):
    (tmp_path / "POSCAR").write_text("hello")
    with pytest.raises(ValueError, match="no POSCAR, CIF, XYZ or LAMMPS data"):
        nd.structure_strain(tmp_path / "POSCAR", "WSe2")
    (tmp_path / "README.md").write_text("# hello")
    with pytest.raises(ValueError, match=r"data: \w+"):
        nd.structure_strain(tmp_path / "README.md", "WSe2")
    with pytest.raises(FileNotFoundError, match="no file"):
        nd.structure_strain(tmp_path / "gone.cif", "WSe2")


def test_without_errors_of_positions_none_of_strains_are_known():
    sites = sites_of(sigma_pm=1.0).assign(y_err_nm=np.nan, x_err_nm=np.nan)
    result = deformation.strain(deformation.displacements(sites, fit="none"))
    assert result["exx"].notna().any()
    assert result[ERRORS].isna().all(axis=None)


@pytest.mark.parametrize("angle", np.linspace(0, 2 * np.pi, 7))
def test_a_profile_may_begin_at_a_row_of_columns(angle: float):
    along = np.array([np.sin(angle), np.cos(angle)])
    place = 1.3 + np.arange(0, 2, 0.1)[:, None] * along
    table = pd.DataFrame({"y_ideal_nm": place[:, 0], "x_ideal_nm": place[:, 1], "frame": 0, "dilation": 0.01})
    profile = deformation.line_profile(table, "dilation", place[0], place[-1], step_nm=0.25)
    assert profile.value == pytest.approx(0.01)
    assert np.isnan(profile.err).all(), "nobody knows them"
    known = deformation.line_profile(table.assign(dilation_err=0.002), "dilation", place[0], place[-1], step_nm=0.25)
    assert (known.err <= 0.002).all()


@pytest.mark.parametrize("call", [
    lambda t: nd.strain(t, "WSe2"), lambda t: nd.displacements(t, "WSe2"), lambda t: nd.strain(t.to_numpy()),
    lambda _: nd.line_profile([1], "exx", (0, 0), (1, 1)), lambda _: nd.strain_image([1], "exx", (9, 9), 0.1),
    lambda _: nd.radial_profile(3),
])  # fmt: skip
def test_what_is_no_table_or_lattice_is_said_to_be_none(call):
    with pytest.raises(TypeError, match=r"`\w+` must be a (DataFrame|Lattice), got \w+; (make|fit) one"):
        call(sites_of())
