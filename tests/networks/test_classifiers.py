from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_defects.networks import Model, list_models, load_model, model_for
from napari_defects.networks.models import build
from napari_defects.networks.zoo import LIMITS, TASKS

KINDS: dict[str, dict[str, Any]] = {
    "patches": {"kind": "patches", "channels": 4, "inputs": 2, "side_px": 12},
    "resnet18": {"kind": "resnet18", "channels": 4, "inputs": 1, "side_px": 32},
    "mobilenet": {"kind": "mobilenet", "blocks": 4, "hidden": 16},
}


def model(kind: str) -> Model:
    first = "background" if TASKS[kind] == "boxes" else "perfect"
    network = build(KINDS[kind], 2).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return Model(network, (first, "V_Te"), 0.02, "MoTe2", {})


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_they_answer_the_same_in_half_the_bytes(kind: str, tmp_path: Path) -> None:
    before = model(kind)
    path = before.save(tmp_path / "m")
    after = load_model(path)
    assert after.task == TASKS[kind]
    assert after.sha256 == before.sha256
    size = sum(tensor.numel() for tensor in before.network.weights().values())
    assert path.stat().st_size < 2.2 * size + 40_000
    if kind != "mobilenet":
        x = torch.randn(3, KINDS[kind]["inputs"], KINDS[kind]["side_px"], KINDS[kind]["side_px"])
        assert torch.equal(before.network(x), after.network(x))


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["background", "V_Te"]},
        {"classes": ["perfect", "V_Te", "V_Mo"]},
        {"architecture": {**KINDS["patches"], "side_px": 10_000}},
        {"architecture": {**KINDS["patches"], "kind": "os.system"}},
        {"architecture": {**KINDS["patches"], "kind": ["patches"]}},
        {"architecture": KINDS["resnet18"]},
        {"architecture": {"kind": "patches"}},
    ],
)
def test_a_header_that_lies_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    raw = model("patches").save(tmp_path / "m").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    about = json.loads(header["__metadata__"]["napari_defects"]) | changes
    header["__metadata__"]["napari_defects"] = json.dumps(about)
    text = json.dumps(header).encode()
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(ValueError, match=r"not a model of napari-defects|damaged"):
        load_model(tmp_path / "bad.safetensors")


def test_each_task_has_its_models() -> None:
    assert set(TASKS) == set(LIMITS)
    assert model_for("MoTe2", "cells") == "mote2-cells"
    assert model_for("MoTe2", "boxes") == "mote2-boxes"
    assert model_for("graphene", "cells") is None
    assert {row["task"] for row in list_models()} == {"maps"}
    assert {row["task"] for row in list_models(None)} == {"maps", "cells", "boxes"}
