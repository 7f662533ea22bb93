"""The CAM family as pure functions: activations and gradients of one layer to one map a sample.

``A`` stands for the activations (B, C, *s) of a layer and ``g`` for the gradient of one score a sample with respect to
them, of the same shape. Each returns a signed map (B, *s) in the units of the score, up to the method's own factor;
whether its negative part is dropped is the caller's choice. Nothing is normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """``Σ_k w_k A_k`` for weights (B, C)."""
    return torch.einsum("bc,bc...->b...", weights, activations)


def _over_cells(values: Tensor) -> Tensor:
    """Sum over the cells of a layer, (B, C)."""
    return values.flatten(2).sum(-1)


def cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """CAM (Zhou et al., CVPR 2016, eq. 2): ``Σ_k w_k A_k`` with the dense layer's weights.

    Behind mean pooling over Z cells every cell has the gradient ``w_k / Z``, so that its sum over the cells is ``w_k``:
    no dense layer need be found.

    Raises:
        InputError: If the gradient differs from cell to cell, so that no mean pooling and dense layer follow.
    """
    flat = gradients.flatten(2)
    spread = flat.amax(-1) - flat.amin(-1)
    if bool((spread > 1e-3 * flat.abs().amax((1, 2), keepdim=True).squeeze(-1)).any()):
        raise InputError(
            "cam needs a layer that is followed by mean pooling and one dense layer: name that layer, or use gradcam"
        )
    return _weighted(flat.sum(-1), activations)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2): weights are the gradients' means over the cells."""
    return _weighted(gradients.flatten(2).mean(-1), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, eq. 19): weights ``Σ_ij α ReLU(g)``.

    ``α = g² / (2 g² + g³ Σ_ab A_k(a, b))``, 0 where g is 0 and where the denominator vanishes; g² is cancelled, as the
    cubes of small gradients leave float32. The factor exp(score) of the paper is the same for all cells and is left
    out: it would overflow.
    """
    total = _over_cells(activations).view(*activations.shape[:2], *(1,) * (activations.ndim - 2))
    denominator = 2 + total * gradients
    terms = torch.where(denominator != 0, gradients.relu() / torch.where(denominator != 0, denominator, 1), 0)
    return _weighted(_over_cells(terms), activations)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020): weights ``Σ_ij g A / Σ_ij A``, 0 for a channel that is silent."""
    total = _over_cells(activations)
    weights = _over_cells(gradients * activations) / torch.where(total != 0, total, 1)
    return _weighted(torch.where(total != 0, weights, 0), activations)


def respondcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Respond-CAM (Zhao et al., MICCAI 2018, and its code): ``Σ_ij g A / (Σ_ij A + 1e-10)``, meant with its sign.

    The map sums to ``Σ g A``: to the score without its bias where only mean pooling and a dense layer follow.
    """
    weights = _over_cells(gradients * activations) / (_over_cells(activations) + 1e-10)
    return _weighted(weights, activations)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin, 2020): ``Σ_k g_k A_k``, cell by cell."""
    return (gradients * activations).sum(1)


def elementwise_gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM element by element: ``Σ_k ReLU(g_k A_k)``, channels that speak against the class left out."""
    return (gradients * activations).relu().sum(1)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM (Jiang et al., IEEE TIP 2021): ``Σ_k ReLU(g_k) A_k``."""
    return (gradients.relu() * activations).sum(1)


def eigencam(activations: Tensor) -> Tensor:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020): the cells' first principal component, the same for every class.

    The activations of a sample, (cells, C) with each channel's mean taken off, are projected onto their first right
    singular vector. Its sign is arbitrary; the side that reaches further from 0 is made positive (Seg-Eigen-CAM).
    """
    cells = activations.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    _, _, right = torch.linalg.svd(cells.nan_to_num(0, 0, 0), full_matrices=False)
    projected = (cells @ right[:, 0, :, None]).squeeze(-1)
    turned = torch.where((projected.amin(-1) < -projected.amax(-1))[:, None], -projected, projected)
    return turned.view(activations.shape[0], *activations.shape[2:])
