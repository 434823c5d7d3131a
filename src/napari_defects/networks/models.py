"""The networks, and the model: a network with its classes, pixel size and history."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn
from torch.nn import functional as F

from ..crystals import Crystal, get_crystal
from .base import Described
from .family import FAMILY, hint, is_member, specific
from .zoo import FIRST, FORMAT, TASKS, check_architecture, check_classes, model_path, read_header


class Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch normalization; `residual` adds the input past them."""

    def __init__(self, n_in: int, n_out: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(n_out)
        self.past = nn.Conv2d(n_in, n_out, 1, bias=False) if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n_in, y, x) to (batch, n_out, y, x)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y if self.past is None else y + self.past(x), inplace=True)


class Up(Block):
    """A block on the way up: on what comes from the coarser level, enlarged, and, if residual, on the finer one."""

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(batch, coarse, y / 2, x / 2) and (batch, fine, y, x) to (batch, fine, y, x)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return super().forward(x if self.past is None else torch.cat([x, fine], dim=1))


class Network(Described):
    """Fully convolutional encoder–decoder from a normalized image to class logits.

    Parameters
    ----------
    n_classes : int
    kind : {"residual", "plain"}
        A U-Net of residual blocks, or the encoder–decoder without skip connections of Ziatdinov
        et al., ACS Nano 11, 12742 (2017).
    channels : int
        Channels of the finest level; each coarser level has twice as many.
    levels : int
        Number of resolutions, each half of the one before.
    stem : int
        ``stem x stem`` pixels are folded into channels first: the network works, and answers, on
        pixels `stem` times as large as the image's.
    inputs : int
        2 for a network that is shown the `hint` of the crystal beside the image.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        kind: str = "residual",
        channels: int = 32,
        levels: int = 3,
        stem: int = 2,
        inputs: int = 1,
    ) -> None:
        super().__init__()
        self.architecture = check_architecture(
            {"kind": kind, "channels": channels, "levels": levels, "stem": stem, "inputs": inputs}
        )
        self.n_classes, self.stem = n_classes, stem
        self.skips = residual = kind == "residual"
        width = [channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            Block(n, m, residual) for n, m in zip([inputs * stem**2, *width], width, strict=False)
        )
        self.up = nn.ModuleList(
            Up(coarse + (fine if self.skips else 0), fine, residual) for fine, coarse in pairwise(width)
        )
        self.head = nn.Conv2d(channels, n_classes, 1)

    @property
    def granularity_px(self) -> int:
        """Sides and origins of tiles must be multiples of this."""
        return int(self.stem * 2 ** (len(self.down) - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, class, y / stem, x / stem) of images (batch, input, y, x)."""
        x = F.pixel_unshuffle(x, self.stem).contiguous(memory_format=torch.channels_last)
        fine: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            fine.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](x, fine[level])
        logits: torch.Tensor = self.head(x)
        return logits


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network and what is needed to use it.

    Parameters
    ----------
    network : Network, PatchNetwork, ResNet18 or BoxNetwork
    classes : tuple of str
        ``"background"`` first, then host columns (``W``, ``Se2``), then species (``V_Se``); of cells ``"perfect"``
        first, then species.
    pixel_size_nm : float
        Images are resampled to this pixel size before the network sees them.
    crystal : str
        Formula of the crystal it is for; ``"MX2"`` for a family of them, empty for any.
    card : dict
        How it was trained and how well it does: what the model card prints.
    """

    network: Any
    classes: tuple[str, ...]
    pixel_size_nm: float
    crystal: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", check_classes(self.classes, FIRST[self.task]))
        if self.network.n_classes != len(self.classes):
            raise ValueError(
                f"`classes` has {len(self.classes)} names for the {self.network.n_classes} of the network."
            )

    @property
    def task(self) -> str:
        """What the network makes of an image: ``maps``, ``cells`` or ``boxes``."""
        return TASKS[self.network.architecture["kind"]]

    def specific(self, crystal: str | Crystal) -> Model:
        """Return the model of a family as that of one of its crystals, with the crystal's names of the classes.

        Raises
        ------
        ValueError
            If it is not one of a family, or the crystal not a member.
        """
        crystal = get_crystal(crystal)
        if self.crystal != FAMILY or not is_member(crystal):
            raise ValueError(f"`model` for {self.crystal or 'any crystal'} cannot be made one for {crystal.name}.")
        return replace(self, classes=tuple(specific(c, crystal) for c in self.classes), crystal=crystal.name)

    def compact(self) -> Model:
        """Return the model with its weights rounded to half precision: half the file."""
        network = copy.deepcopy(self.network)
        network.load_state_dict({k: v.half().float() if v.is_floating_point() else v
                                 for k, v in network.state_dict().items()})  # fmt: skip
        return replace(self, network=network)

    def planes(self, image: torch.Tensor) -> torch.Tensor:
        """Stack a prepared image (y, x) with what else the network is shown: (1, input, y, x).

        Raises
        ------
        ValueError
            If the model is one of a family, and it is not said for which crystal.
        """
        if self.network.architecture["inputs"] == 1:
            return image[None, None]
        if self.crystal == FAMILY:
            raise ValueError(f"`model` is for any {FAMILY} crystal: say which, as in 'mx2:MoTe2'.")
        return torch.stack([image, torch.full_like(image, hint(self.crystal))])[None]

    @property
    def sha256(self) -> str:
        """Fingerprint of the weights; recipes keep it to say which model was used."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.weights().items()):
            digest.update(name.encode())
            digest.update(tensor.float().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the model as safetensors, the rest as JSON in its header; whole or not at all.

        Tensors that half precision holds without loss are written so.
        """
        path = with_ending(path)
        about = {
            "format": FORMAT,
            "architecture": self.network.architecture,
            "classes": list(self.classes),
            "pixel_size_nm": self.pixel_size_nm,
            "crystal": self.crystal,
            "sha256": self.sha256,
            "card": self.card,
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            partial.write_bytes(to_bytes(_smallest(self.network.weights()), {"napari_defects": json.dumps(about)}))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def with_ending(path: str | Path) -> Path:
    """Path of a model file: ``.safetensors`` is added where it is missing."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")


def load_model(name_or_path: str | Path, crystal: str | Crystal | None = None) -> Model:
    """Load a shipped model by its name, or one of your own by its path.

    Parameters
    ----------
    name_or_path : str or path
        For instance ``"wse2-te"``; `list_models` tells the names. A model of a family takes the crystal after a
        colon: ``"mx2:MoTe2"``.
    crystal : str or Crystal, optional
        What the model is for, if it is one of a family; others stay as they are.

    Returns
    -------
    Model
        Ready to predict, in float32 on the CPU.

    Raises
    ------
    ValueError
        If there is no such model, or the file is not one, is damaged or asks for too much.
    """
    whole, _, member = str(name_or_path).rpartition(":")
    if len(whole) > 1 and not Path(name_or_path).exists():  # one letter is a drive
        return load_model(whole).specific(member)
    path = model_path(name_or_path)
    tensors, about = read_header(path)
    with torch.device("meta"):
        network = build(about["architecture"], len(about["classes"]))
    expected = {name: tuple(tensor.shape) for name, tensor in _shapes(network).items()}
    if expected != {name: shape for name, (_, shape) in tensors.items()}:
        raise ValueError(f"{str(path)!r} is damaged: its tensors are not those of the network it describes.")
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}.") from None
    network = build(about["architecture"], len(about["classes"]))
    network.load_state_dict(state, strict=False)
    model = Model(network.eval(), about["classes"], about["pixel_size_nm"], about["crystal"], about["card"])
    if model.sha256 != about["sha256"]:
        raise ValueError(f"{str(path)!r} is damaged: its weights do not match their fingerprint.")
    return model.specific(crystal) if crystal is not None and model.crystal == FAMILY else model


def build(architecture: dict[str, Any], n_classes: int) -> Described:
    """Return a network of an architecture, its weights drawn at random."""
    kind = architecture["kind"]
    if kind in ("patches", "resnet18"):  # what torchvision brings along takes seconds to load: not without need
        from .classifiers import PatchNetwork, ResNet18

        return (PatchNetwork if kind == "patches" else ResNet18)(n_classes, **architecture)
    if kind == "mobilenet":
        from .detectors import BoxNetwork

        return BoxNetwork(n_classes, **architecture)
    return Network(n_classes, **architecture)


def _smallest(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half precision for the tensors that it holds without loss."""
    return {name: t.half() if torch.equal(t.half().float(), t) else t for name, t in weights.items()}


def _shapes(network: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
