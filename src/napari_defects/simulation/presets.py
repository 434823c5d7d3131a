"""Conditions of published work, as keywords of `simulate`."""

from __future__ import annotations

from typing import Any

from .probe import Microscope

PRESETS: dict[str, dict[str, Any]] = {
    # C.-H. Lee et al., Nano Lett. 20, 3369 (2020) and Lee et al. (2021): 30 pA, 20 µs per pixel.
    "Lee 2020": {
        "microscope": Microscope(80.0, 25.2, 63.0, 200.0, source_fwhm_nm=0.10),
        "pixel_size_nm": 0.0207,
        "dose_e_per_A2": 8.7e4,
    },
    # 2DIP-Net: 75 x 65 pixels per unit cell of MoTe2.
    "2DIP-Net": {
        "microscope": Microscope(80.0, 27.0, 70.0, 278.0, source_fwhm_nm=0.06),
        "pixel_size_nm": 0.0047,
        "dose_e_per_A2": 1e5,
    },
    # M. Ziatdinov et al., ACS Nano 11, 12742 (2017): silicon in graphene.
    "Ziatdinov 2017": {
        "microscope": Microscope(60.0, 31.0, 86.0, 200.0, source_fwhm_nm=0.08),
        "pixel_size_nm": 0.0156,
        "dose_e_per_A2": 1e6,
    },
}
