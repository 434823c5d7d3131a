from __future__ import annotations

from typing import Any

import pytest
import torch

import napari_defects as nd


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny networks gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mote2() -> tuple[nd.Micrograph, Any]:
    """MoTe2 turned by 21 degrees with some of every vacancy, and its true sites."""
    defects = {"V_Te": 8, "V2_Te": 5, "V_Mo": 5}
    return nd.simulate(
        "MoTe2", field_of_view_nm=5.0, pixel_size_nm=0.02, defects=defects, scan=nd.Scan(rotation_deg=21.0), seed=6
    )
