from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.checks import check_choice, check_place, check_range, check_type


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1, 2, "1", None, True, [1], 0])
def test_a_range_refuses_what_is_outside_and_what_is_no_number(value):
    with pytest.raises(
        (ValueError, TypeError), match=r"`share` must be above 0 and at most 1, got .*; or leave it out"
    ):
        check_range("share", value, 0, 1, above=True, hint="or leave it out")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_a_range_takes_numbers_of_every_kind(value):
    check_range("share", value, 0, 1, above=True)


def test_other_checks_name_argument_value_and_remedy():
    with pytest.raises(ValueError, match=r"`n` must be a whole number, 1 or more, got 2\.5"):
        check_range("n", 2.5, 1, whole=True)
    with pytest.raises(ValueError, match="`fit` must be one of none, affine, got 'afine'"):
        check_choice("fit", "afine", ("none", "affine"))
    with pytest.raises(TypeError, match="`model` must be a str or int, got NoneType; name one"):
        check_type("model", None, str | int, "name one")
    for wrong in ([1.0], "ab", (1, np.nan), 3):
        with pytest.raises(ValueError, match=r"`center_nm` must be a place \(y, x\) in nm"):
            check_place("center_nm", wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image: nd.predict(image.data, "wse2-te"), r"`micrograph` must be a Micrograph.*Micrograph\(data"),
        (lambda image: nd.predict(image, None), "`model` must be a Model or str or Path, got NoneType"),
        (lambda image: nd.average(image.data, None), "`micrographs` must be a Micrograph, got ndarray"),
        (lambda image: nd.detect_cells(image.data, crystal="MoTe2"), "`micrograph` must be a Micrograph"),
        (lambda image: nd.calibrate(image.data, "WSe2"), "`micrograph` must be a Micrograph"),
        (lambda image: nd.match(image.data, "WSe2"), "`micrograph` must be a Micrograph"),
        (lambda image: nd.noise.estimate(image.data), "`micrograph` must be a Micrograph"),
        (lambda _: nd.simulate("WSe2", microscope=None), r"`microscope` must be a Microscope, got NoneType; make one"),
        (lambda _: nd.tables.crystal_of(None), r"`sites` must be a DataFrame.*assign_sites"),
    ],
)
def test_the_first_argument_of_a_step_is_what_it_takes(call, message):
    with pytest.raises(TypeError, match=message):
        call(nd.Micrograph(np.arange(1600.0).reshape(40, 40), 0.02))
