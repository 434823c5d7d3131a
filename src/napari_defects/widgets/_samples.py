"""Sample data: images made by the simulator with fixed seeds, with the truth beside them as hidden points."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_defects.widgets._files import show_scale_bar
from napari_defects.widgets._layers import LayerData, image_layer
from napari_defects.widgets._points import table_layer


def wse2_te() -> list[LayerData]:
    """WSe2 with tellurium substitutions and vacancies."""
    defects = {"Te_Se": 0.06, "Te2_Se": 0.01, "V_Se": 0.05, "V2_Se": 0.01, "V_W": 0.005, "Se_W": 0.005}
    return simulated("WSe2 with Te", "WSe2", field_of_view_nm=12.0, defects=defects, seed=1, **_stem80(17.0))


def large_field() -> list[LayerData]:
    """WSe2 with few defects, 40 nm wide: 34,000 columns."""
    defects = {"Te_Se": 0.02, "V_Se": 0.02, "V2_Se": 0.002, "V_W": 0.001}
    return simulated("WSe2, large field", "WSe2", field_of_view_nm=40.0, defects=defects, seed=4, **_stem80(8.0))


def mote2() -> list[LayerData]:
    """MoTe2 with single and double tellurium vacancies."""
    defects = {"V_Te": 0.04, "V2_Te": 0.01, "V_Mo": 0.005}
    return simulated("MoTe2", "MoTe2", field_of_view_nm=10.0, defects=defects, seed=2, **_stem80(5.0))


def graphene_si() -> list[LayerData]:
    """Graphene with silicon in three- and four-fold coordination and vacancies."""
    defects = {"Si1C3": 4, "Si1C4": 2, "V1": 2, "V2": 1}
    return simulated(
        "graphene with Si", "graphene", field_of_view_nm=8.0, pixel_size_nm=0.015, defects=defects, seed=3, **_stem60()
    )


def graphene_si_movie() -> list[LayerData]:
    """Graphene with silicon, twelve frames, each with its own noise and the silicon somewhere else."""
    from dataclasses import replace

    import pandas as pd

    from napari_defects import simulate

    frames, tables = [], []
    for number in range(12):
        micrograph, truth = simulate(
            "graphene", field_of_view_nm=5.0, pixel_size_nm=0.02, defects={"Si1C3": 2}, seed=10 + number, **_stem60()
        )
        frames.append(np.asarray(micrograph.data))
        tables.append(truth.assign(frame=number))
    movie = replace(micrograph, data=np.stack(frames), frame_interval_s=1.0, metadata={"name": "graphene movie"})
    truth = pd.concat(tables, ignore_index=True)
    name = "graphene with Si (movie)"
    layers = [image_layer(movie, name, crystal="graphene"), _truth(truth, name, "graphene", movie=True)]
    show_scale_bar(layers)
    return layers


def simulated(name: str, crystal: str, **conditions: Any) -> list[LayerData]:
    """Return a simulated micrograph with its true atoms and true defects as hidden points."""
    from napari_defects import simulate

    micrograph, truth = simulate(crystal, **conditions)
    layers = [image_layer(micrograph, name, crystal=crystal), _truth(truth, name, crystal)]
    defects = micrograph.metadata.get("defects")
    if defects is not None:
        layers.append(
            _hidden(table_layer(defects, "defects", f"true defects · {name}", image=name, crystal=crystal, truth=True))
        )
    show_scale_bar(layers)
    return layers


def _truth(truth: Any, name: str, crystal: str, movie: bool = False) -> LayerData:
    return _hidden(
        table_layer(truth, "sites", f"true atoms · {name}", movie=movie, image=name, crystal=crystal, truth=True)
    )


def _hidden(layer: LayerData) -> LayerData:
    return layer[0], {**layer[1], "visible": False}, layer[2]


def _stem80(rotation_deg: float) -> dict[str, Any]:
    from napari_defects import Scan

    return {"scan": Scan(rotation_deg=rotation_deg, wander_pm=15.0, jitter_pm=3.0), "dose_e_per_A2": 6e4}


def _stem60() -> dict[str, Any]:
    from napari_defects import Microscope

    microscope = Microscope(energy_keV=60.0, convergence_mrad=31.0, detector_inner_mrad=86.0, detector_outer_mrad=200.0)
    return {"microscope": microscope, "dose_e_per_A2": 1e6}
