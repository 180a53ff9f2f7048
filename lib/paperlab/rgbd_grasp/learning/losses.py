"""Losses between raw outputs and 0/1 labels, a few thousandths of which are 1."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossKind = Literal["bce", "mse"]


def heatmap_loss(outputs_BCRW: Tensor, labels_BCRW: Tensor, kind: LossKind, positive_weight: float = 1.0) -> Tensor:
    """Return the mean loss over all entries; "mse" is the released code's, on outputs without a sigmoid.

    With plain MSE all zeros costs almost nothing, and a short training ends there; "bce" is on logits.
    """
    outputs = outputs_BCRW.float()
    labels = labels_BCRW.to(outputs)
    if kind == "bce":
        weight = None if positive_weight == 1 else torch.tensor(positive_weight, device=outputs.device)
        return F.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weight)
    error = (outputs - labels).square()
    return (error if positive_weight == 1 else error * (1 + (positive_weight - 1) * labels)).mean()
