from __future__ import annotations

import pytest
import torch

from napari_defects.networks import Model, Training, train

from .toys import CLASSES, toys

OPTIONS = Training(
    steps=400,
    batch=8,
    crop_px=64,
    channels=8,
    levels=2,
    held_back=8,
    validate_every=100,
    average=0.98,
    images=40,
    learning_rate=1e-2,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny networks gain nothing from threads, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_model() -> Model:
    return train(toys(40), classes=CLASSES, options=OPTIONS, seed=1)
