"""Faster R-CNN with the features of MobileNetV2: boxes around the cells of a crystal."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from .base import Described
from .zoo import check_architecture

ANCHORS_PX = (8, 16, 32, 64, 128)
RATIOS = (0.5, 1.0, 2.0)
MOST_BOXES = 800
INPUT_PX = 512


class _AsItComes(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Neither resizes nor normalizes."""

    def resize(self, image: torch.Tensor, target: Any = None) -> tuple[torch.Tensor, Any]:
        return image, target


class BoxNetwork(Described):
    """Boxes of each class in grey pictures of any size, as they come: nothing is resized.

    Parameters
    ----------
    n_classes : int
        The background included.
    blocks : int
        How many blocks of MobileNetV2's features are kept: 19 for all (stride 32), 14 for stride 16, 7 for stride 8.
    hidden : int
        Width of the box head; 1024 in the original.
    """

    def __init__(self, n_classes: int, *, kind: str = "mobilenet", blocks: int = 19, hidden: int = 1024):
        super().__init__()
        self.architecture = check_architecture({"kind": kind, "blocks": blocks, "hidden": hidden})
        self.n_classes = n_classes
        features = mobilenet_v2(weights=None).features[:blocks]
        features[0][0] = nn.Conv2d(1, 32, 3, 2, 1, bias=False)
        last = [m for m in features.modules() if isinstance(m, nn.Conv2d)][-1]
        features.out_channels = last.out_channels
        self.detector = FasterRCNN(
            features,
            rpn_anchor_generator=AnchorGenerator((ANCHORS_PX,), (RATIOS,)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
            box_head=TwoMLPHead(last.out_channels * 49, hidden),
            box_predictor=FastRCNNPredictor(hidden, n_classes),
            rpn_fg_iou_thresh=0.6, rpn_pre_nms_top_n_train=2000, rpn_post_nms_top_n_train=1000,
            rpn_pre_nms_top_n_test=4000, rpn_post_nms_top_n_test=2 * MOST_BOXES,
            box_detections_per_img=2 * MOST_BOXES, box_nms_thresh=0.4, box_batch_size_per_image=256,
        )  # fmt: skip

        self.detector.transform = _AsItComes(INPUT_PX, INPUT_PX, image_mean=[0.0], image_std=[1.0])

    def forward(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Losses by name while training, else ``boxes`` (x0, y0, x1, y1), ``labels`` and ``scores`` of each image."""
        found: dict[str, torch.Tensor] | list[dict[str, torch.Tensor]] = self.detector(images, targets)
        return found
