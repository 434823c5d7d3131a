from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from napari_defects.networks import load_model, predict
from napari_defects.networks.folding import folded
from napari_defects.networks.models import Network
from napari_defects.networks.zoo import read_header

from .toys import toy


@pytest.fixture
def saved(tmp_path, toy_model):
    return toy_model.save(tmp_path / "toy")


def header(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewrite(path, entries, body):
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def changed(path, **about):
    entries, body = header(path)
    entries["__metadata__"]["napari_defects"] = json.dumps(
        json.loads(entries["__metadata__"]["napari_defects"]) | about
    )
    rewrite(path, entries, body)


def test_save_and_load_give_the_same_maps(saved, toy_model):
    model = load_model(saved)
    assert model.sha256 == toy_model.sha256
    assert (model.classes, model.pixel_size_nm, model.crystal) == (toy_model.classes, 0.02, "")
    assert model.card == json.loads(json.dumps(toy_model.card))
    micrograph, _ = toy(5)
    assert np.array_equal(predict(micrograph, model).data, predict(micrograph, toy_model).data)
    assert read_header(saved)[1]["sha256"] == model.sha256


def test_dots_in_a_name_stay(tmp_path, toy_model):
    assert toy_model.save(tmp_path / "mine.v2").name == "mine.v2.safetensors"
    assert toy_model.save(tmp_path / "mine.safetensors").name == "mine.safetensors"


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"\x80\x04pickle" * 9])
def test_not_a_model_is_one_sentence(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a model of napari-defects or is damaged") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_truncated_and_flipped_files(saved):
    raw = saved.read_bytes()
    saved.write_bytes(raw[:-100])
    with pytest.raises(ValueError, match="its length is not what its header says"):
        load_model(saved)
    saved.write_bytes(raw[:-100] + bytes(b ^ 0x55 for b in raw[-100:]))
    with pytest.raises(ValueError, match="do not match their fingerprint"):
        load_model(saved)


@pytest.mark.parametrize(
    "about",
    [
        {"classes": ["background", "W", "W", "Te_W"]},
        {"classes": ["background", "<script>", "V_W", "Te_W"]},
        {"classes": ["background"] + [f"a{k}" for k in range(10**5)]},
        {"classes": "background"},
        {"classes": ["background", "W", "V_W"]},
        {"pixel_size_nm": 1e9},
        {"pixel_size_nm": float("nan")},
        {"pixel_size_nm": [0.02] * 9},
        {"architecture": {"kind": "residual", "channels": 10**9, "levels": 3, "stem": 2}},
        {"architecture": {"kind": "residual", "channels": 8, "levels": 10**9, "stem": 2}},
        {"architecture": {"kind": "os.system", "channels": 8, "levels": 2, "stem": 2}},
        {"architecture": {"kind": "plain", "channels": 8, "levels": 2, "stem": 2}},
        {"architecture": None},
        {"format": 99},
        {"card": "text"},
    ],
)
def test_hostile_description_is_one_sentence(saved, about):
    changed(saved, **about)
    with pytest.raises(ValueError, match="damaged") as caught:
        load_model(saved)
    assert len(str(caught.value)) < 600


def test_hostile_shapes_allocate_nothing(saved):
    entries, body = header(saved)
    entries["head.weight"]["shape"] = [10**9, 10**9]
    rewrite(saved, entries, body)
    with pytest.raises(ValueError, match="damaged"):
        load_model(saved)
    entries["head.weight"] = {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}
    rewrite(saved, entries, body)
    with pytest.raises(ValueError, match="damaged"):
        load_model(saved)


def test_unknown_name_and_folder(tmp_path):
    for name in ("no-such-model", tmp_path):
        with pytest.raises(ValueError, match="`model` must be a shipped model"):
            load_model(name)


def reach_px(network):
    """Farthest pixel that can change an output, rounded up to the granularity."""
    levels, grain = len(network.down), network.granularity_px
    reach = network.stem * (2 * 2 * (2 ** (levels - 1) - 1) + 2 * 2 ** (levels - 1)) + grain - 1
    return -(-reach // grain) * grain


@pytest.mark.parametrize("kind", ["residual", "plain"])
@pytest.mark.parametrize(("levels", "stem"), [(3, 2), (2, 1)])
def test_nothing_beyond_its_reach_changes_an_output(kind, levels, stem):
    torch.manual_seed(1)
    network = Network(3, kind=kind, channels=4, levels=levels, stem=stem).eval()
    reach, grain = reach_px(network), network.granularity_px
    side = 2 * reach + 4 * grain
    x = torch.randn(1, 1, side, side)
    far = x.clone()
    far[..., : 2 * grain, :] += 10
    with torch.inference_mode():
        change = (network(x) - network(far)).abs().amax(dim=(0, 1, 3))
    assert change[0] > 1e-5
    assert torch.all(change[(2 * grain + reach) // stem :] == 0)


def test_default_network_has_half_a_million_parameters():
    network = Network(10)
    assert 4e5 < sum(p.numel() for p in network.parameters()) < 6e5
    assert reach_px(network) <= 56 - network.granularity_px


@pytest.mark.parametrize(("kind", "levels", "stem"), [("residual", 3, 2), ("residual", 2, 1), ("plain", 3, 2)])
def test_folded_network_gives_the_same_up_to_the_border(kind, levels, stem):
    network = Network(3, kind=kind, channels=4, levels=levels, stem=stem).train()
    for _ in range(3):
        network(torch.randn(2, 1, 64, 64))
    network.eval()
    x = torch.randn(1, 1, 64, 48)
    with torch.inference_mode():
        assert torch.allclose(network(x), folded(network)(x), atol=1e-5)
