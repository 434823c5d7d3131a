from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from napari.components import ViewerModel
from napari.layers import Image
from skimage.color import rgb2lab

import napari_defects as nd
from napari_defects.crystals import species_color
from napari_defects.widgets._layers import (
    contrast,
    image_layer,
    map_layer,
    mask_layer,
    micrograph_of,
    scale_nm,
    set_scale_nm,
)
from napari_defects.widgets._points import species_symbol
from napari_defects.widgets._viewer import upsert


def test_a_micrograph_survives_the_way_into_a_layer_and_back() -> None:
    pixels = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    before = nd.Micrograph(pixels, (0.02, 0.021), metadata={"file": "a.dm4"})
    data, keywords, kind = image_layer(before, "a")
    after = micrograph_of(Image(data, **keywords))
    assert kind == "image"
    np.testing.assert_array_equal(after.data, pixels)
    np.testing.assert_allclose(after.pixel_size_yx_nm, (0.02, 0.021))
    assert after.metadata["file"] == "a.dm4"


def test_a_movie_has_frames_without_a_length() -> None:
    data, keywords, _ = image_layer(nd.Micrograph(np.random.default_rng(0).random((5, 40, 50)), 0.02, 0.5), "movie")
    layer = Image(data, **keywords)
    assert [str(u) for u in layer.units] == ["pixel", "nanometer", "nanometer"]
    after = micrograph_of(layer)
    assert (after.n_frames, after.pixel_size_nm, after.frame_interval_s) == (5, 0.02, 0.5)


@pytest.mark.parametrize(("unit", "scale"), [("nm", 0.02), ("angstrom", 0.2), ("um", 2e-5), ("pm", 20)])
def test_lengths_are_read_in_any_unit(unit: str, scale: float) -> None:
    layer = Image(np.zeros((40, 40)), scale=(scale, scale), units=(unit, unit))
    assert micrograph_of(layer).pixel_size_nm == pytest.approx(0.02)


def test_pixels_are_no_length() -> None:
    layer = Image(np.eye(40), name="raw")
    assert scale_nm(layer) is None
    assert micrograph_of(layer).pixel_size_nm is None
    set_scale_nm(layer, 0.03)
    assert micrograph_of(layer).pixel_size_nm == pytest.approx(0.03)
    with pytest.raises(ValueError, match="atomic-resolution"):
        set_scale_nm(layer, 30)


def test_rgb_layers_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"'photo' is an RGB picture.*Split RGB"):
        micrograph_of(Image(np.zeros((40, 40, 3)), rgb=True, name="photo"))


def test_contrast_ignores_nan_and_outliers() -> None:
    pixels = np.random.default_rng(0).normal(10, 1, (100, 100))
    pixels[0, 0], pixels[5, 5] = np.nan, 1e9
    low, high = contrast(pixels)
    assert 5 < low < high < 20
    assert contrast(np.full((40, 40), np.nan)) == (0.0, 1.0)
    assert contrast(np.ones((40, 40)))[1] > 1.0


def test_maps_are_one_hidden_layer_and_the_mask_follows_the_threshold(maps: nd.Maps) -> None:
    data, keywords, _ = map_layer(maps, "maps", "V_Se")
    assert keywords["visible"] is False
    np.testing.assert_array_equal(data, maps["V_Se"])
    mask = mask_layer(maps, "mask", 0.5)[0]
    assert set(np.unique(mask)) == {0, 3, 4, 5}, "defect classes only"
    assert mask_layer(maps, "mask", 0.95)[0].max() == 0
    viewer = ViewerModel()
    layer = upsert(viewer, mask_layer(maps, "mask", 0.5))
    assert viewer.canvas.overlays.scale_bar.visible
    assert upsert(viewer, mask_layer(maps, "mask", 0.95)) is layer
    assert layer.data.max() == 0
    np.testing.assert_allclose(layer.scale, 0.025)


def test_a_second_layer_of_the_same_name_takes_the_place_of_the_first() -> None:
    viewer = ViewerModel()
    rng = np.random.default_rng(0)
    first = upsert(viewer, image_layer(nd.Micrograph(rng.random((40, 40)), 0.02), "a"))
    upsert(viewer, image_layer(nd.Micrograph(rng.random((40, 40)), 0.02), "b"))
    first.visible = False
    second = upsert(viewer, image_layer(nd.Micrograph(rng.random((50, 60)), 0.03), "a", crystal="WSe2"))
    assert second is first
    assert [layer.name for layer in viewer.layers] == ["a", "b"]
    assert (second.visible, second.data.shape, second.scale[0]) == (False, (50, 60), 0.03)
    assert second.metadata["napari_defects"]["crystal"] == "WSe2"


SEEN = {
    "all": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "no red": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "no green": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881],
    "no blue": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900],
}
"""What the colour-blind see of linear RGB: Machado et al., IEEE TVCG 15, 1291 (2009)."""


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("host", [("W", "Se", "Mo"), ("Mo", "S", "W")])
def test_species_of_one_image_can_be_told_apart(host: tuple[str, str, str], eye: str) -> None:
    metal, own, other = host
    on_own = [f"{x}{n}_{own}" for x in ("V", "S", "Se", "Te", "O") if x != own for n in ("", "2")] + [f"{metal}_{own}"]
    on_metal = [f"{x}{n}_{metal}" for x in ("S", "Se", "Te") for n in ("", "2")]
    on_metal += [f"{x}_{metal}" for x in ("V", other, "Ti", "Nb", "Re", "Cr")]
    odd = [f"{way}_{site}" for way in ("darker", "brighter") for site in (metal, own)]
    species = [*on_own, *on_metal, *odd, f"V_{own}+V_{metal}", f"V2_{own}+V_{metal}", f"Te_{own}+V_{metal}"]
    places: dict[str, np.ndarray] = {}
    for name in species:
        rgb = np.array(to_rgb(species_color(name)))
        linear = np.clip(
            np.reshape(SEEN[eye], (3, 3)) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1
        )
        places[name] = rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
    for one, two in combinations(species, 2):
        if species_symbol(one) == species_symbol(two):
            assert np.linalg.norm(places[one] - places[two]) > 11, (one, two)
    assert len({species_color(name) for name in species}) == len(species), "figures have circles alone"
