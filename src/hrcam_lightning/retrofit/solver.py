"""The head's weights as the solution of one convex problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from hrcam_lightning.errors import InputError
from hrcam_lightning.retrofit.equivariance import combine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hrcam_lightning.data.contract import TaskKind
    from hrcam_lightning.retrofit.features import Floats, Ints, Pooled

Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
STEPS = 1000
"""Iterations after which a fit is given up; well-posed ones take some dozens."""


@dataclass(frozen=True)
class Solution:
    """Weights of a head on standardised features.

    Attributes:
        weight: (K, C).
        bias: (K,).
        loss: Mean loss over the training cases, without penalties.
        energy: ``Σ_c w_cᵀ Q w_c``, the part of the penalty that λ/2 multiplies.
    """

    weight: Floats
    bias: Floats
    loss: float
    energy: float


@dataclass(frozen=True)
class Problem:
    """Minimise ``mean loss + l2/2 Σ|w_c|² + λ/2 Σ_c w_cᵀ Q w_c`` over the weights and biases of K classes.

    The loss is logistic (binary), softmax cross-entropy (multiclass), or the sum over findings of logistic losses
    (multilabel), so that findings are independent problems and λ means the same whatever their number. All of it is
    convex; `solve` is L-BFGS (Liu & Nocedal, 1989) after a change of variables by the Hessian's upper bound
    ``XᵀX/4N + l2 + λQ`` (Böhning, 1992), in which penalties of any size are well conditioned.

    The λ penalty is there to choose a direction, but it shrinks the weights as well, and shrunken logits are
    underconfident. Each class's direction is therefore stretched, and its bias moved, to the minimum without that
    penalty (as the relaxed lasso does, Meinshausen, 2007): one more convex problem of 2 K numbers.

    Attributes:
        data: Pooled features and labels of the training cases.
        task: Kind of label.
        classes: Number K of maps.
        mean: (C,), subtracted from the features.
        scale: (C,), by which they are divided.
        covariance: (C, C) ``XᵀX/N`` of the standardised features.
        penalty: (C, C), Q in their units.
    """

    data: Pooled
    task: TaskKind
    classes: int
    mean: Floats
    scale: Floats
    covariance: Floats
    penalty: Floats

    @classmethod
    def of(
        cls,
        data: Pooled,
        task: TaskKind,
        names: Sequence[str],
        matrices: Mapping[str, Floats] | None = None,
        owners: Ints | None = None,
    ) -> Problem:
        """Standardise the features, and Q with them.

        Args:
            data: Pooled features and labels of the training cases.
            task: Kind of label.
            names: Names of the K maps.
            matrices: Q (C, C) in the units of the channels, in parts; none if not given.
            owners: (C,) see `Reading.owners`: the scale of a channel is that of its owner, for what neighbours add
                varies too little over the cases to have one. Each its own if not given.

        Raises:
            InputError: If a class has no training case, or nothing else.
        """
        _check(data.labels, task, names)
        mean, scale = data.moments()
        scale = scale if owners is None else scale[owners]
        covariance = np.zeros((len(mean), len(mean)))
        for _, chunk in data.chunks():
            part = (chunk - mean) / scale
            covariance += part.T @ part / len(data.values)
        return cls(data, task, len(names), mean, scale, covariance, combine(matrices or {}, scale, owners))

    def held(self, matrices: Mapping[str, Floats], owners: Ints | None = None) -> Problem:
        """The same problem with another penalty, of the parts `matrices` of Q; see `of`."""
        return replace(self, penalty=combine(matrices, self.scale, owners))

    def solve(self, l2: float, equivariance: float, start: Solution | None = None) -> Solution:
        """The minimum.

        Args:
            l2: Strength of the ridge penalty.
            equivariance: λ.
            start: Where to begin; at 0 if not given.

        Raises:
            InputError: If it is not reached: without `l2`, separable classes have none.
        """
        channels = len(self.mean)
        bound = self.covariance / 4 + l2 * np.eye(channels) + equivariance * self.penalty
        # the smallest number that keeps the factor real where the penalties leave a direction free
        root = cholesky(bound + 1e-8 * np.trace(bound) / channels * np.eye(channels), lower=True)
        start_weight = np.zeros((self.classes, channels)) if start is None else start.weight
        start_bias = np.zeros(self.classes) if start is None else start.bias
        first = np.column_stack([start_weight @ root, start_bias / 2])

        def unpack(flat: Vector) -> tuple[Floats, Floats]:
            variables = flat.reshape(self.classes, channels + 1)
            weight = solve_triangular(root, variables[:, :-1].T, lower=True, trans="T", check_finite=False).T
            return weight, 2 * variables[:, -1]

        def objective(flat: Vector) -> tuple[float, Vector]:
            weight, bias = unpack(flat)
            loss, weight_slope, bias_slope = self._loss(weight, bias)
            pull = l2 * weight + equivariance * weight @ self.penalty
            value = loss + 0.5 * float((weight * pull).sum())
            slope = solve_triangular(root, (weight_slope + pull).T, lower=True, check_finite=False).T
            return value, np.column_stack([slope, 2 * bias_slope]).ravel()

        found = minimize(
            objective,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": STEPS, "maxfun": 2 * STEPS, "ftol": 1e-12, "gtol": 1e-6, "maxcor": 20},
        )
        weight, bias = unpack(found.x)
        _settled(found.fun, found.jac, l2)
        if equivariance:
            stretch, bias = self._stretch(weight, bias, l2)
            weight = stretch[:, None] * weight
        energy = float((weight * (weight @ self.penalty)).sum())
        solution = Solution(weight, bias, self._loss(weight, bias)[0], energy)
        if l2 == 0 and self._separates(solution):
            raise _without_minimum(l2)
        return solution

    def _stretch(self, weight: Floats, bias: Floats, l2: float) -> tuple[Floats, Floats]:
        """Factors (K,) of the weights, none below 0, and biases (K,), fitted without λ."""
        raw = weight / self.scale
        along = np.concatenate([(chunk - self.mean) @ raw.T for _, chunk in self.data.chunks()])
        unit = along.std(0) + 1e-300  # so that the variables are of order 1
        lengths = (weight**2).sum(1) / unit**2
        truth = targets(self.data.labels, self.task, self.classes)

        def objective(flat: Vector) -> tuple[float, Vector]:
            factor, offset = np.split(flat, 2)
            logits = factor * along / unit + offset
            error = probabilities(logits, self.task) - truth
            value = float(losses(logits, self.data.labels, self.task).mean() + 0.5 * l2 * (lengths * factor**2).sum())
            slopes = (error * along / unit).mean(0) + l2 * lengths * factor
            return value, np.concatenate([slopes, error.mean(0)])

        bounds = [(0.0, None)] * self.classes + [(None, None)] * self.classes
        first = np.concatenate([unit, bias])
        found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
        factor, offset = np.split(found.x, 2)
        slopes, offset_slopes = np.split(found.jac, 2)
        _settled(found.fun, np.concatenate([np.where(factor > 0, slopes, np.minimum(slopes, 0)), offset_slopes]), l2)
        return factor / unit, offset

    def _separates(self, solution: Solution) -> bool:
        """Whether weights tell the training cases of a class apart without fault: twice as long they were better."""
        logits = self.logits(solution, self.data)
        truth = targets(self.data.labels, self.task, self.classes) > 0
        if self.task == "multiclass":
            return bool((np.where(truth, logits, np.inf).min(1) > np.where(truth, -np.inf, logits).max(1)).all())
        return bool(((logits > 0) == truth).all(0).any())

    def logits(self, solution: Solution, data: Pooled) -> Floats:
        """Logits (N, K) of the cases of any split."""
        weight, bias = self.folded(solution)
        return np.concatenate([chunk @ weight.T + bias for _, chunk in data.chunks()])

    def folded(self, solution: Solution) -> tuple[Floats, Floats]:
        """Weights (K, C) and biases (K,) for features as they are: ``w/σ`` and ``b − Σ w μ/σ``."""
        weight = solution.weight / self.scale
        return weight, solution.bias - weight @ self.mean

    def _loss(self, weight: Floats, bias: Floats) -> tuple[float, Floats, Floats]:
        """Mean loss and its slope along weights (K, C) and biases (K,)."""
        raw = weight / self.scale
        shift = bias - raw @ self.mean
        total, slope, bias_slope = 0.0, np.zeros_like(weight), np.zeros_like(bias)
        for rows, chunk in self.data.chunks():
            logits, labels = chunk @ raw.T + shift, self.data.labels[rows]
            error = probabilities(logits, self.task) - targets(labels, self.task, self.classes)
            total += float(losses(logits, labels, self.task).sum())
            # The sum of errors times the mean is what standardising would have taken off.
            slope += (error.T @ chunk - np.outer(error.sum(0), self.mean)) / self.scale
            bias_slope += error.sum(0)
        cases = len(self.data.values)
        return total / cases, slope / cases, bias_slope / cases


def targets(labels: Labels, task: TaskKind, classes: int) -> Floats:
    """(N, K), 1 where the case is of the class."""
    if task == "multiclass":
        return np.eye(classes)[labels]
    return labels.reshape(len(labels), classes).astype(np.float64)


def probabilities(logits: Floats, task: TaskKind) -> Floats:
    """(N, K) from logits (N, K)."""
    return np.asarray(softmax(logits, axis=1) if task == "multiclass" else expit(logits))


def losses(logits: Floats, labels: Labels, task: TaskKind) -> Floats:
    """Loss of each case, (N,), from logits (N, K)."""
    if task == "multiclass":
        return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels])
    truth = targets(labels, task, logits.shape[1])
    return np.asarray((np.logaddexp(0, logits) - truth * logits).sum(1))


def _settled(value: float, slope: Floats, l2: float) -> None:
    if not np.isfinite(value) or not np.abs(slope).max() <= 1e-3:
        raise _without_minimum(l2)


def _without_minimum(l2: float) -> InputError:
    return InputError(
        f"the head's weights do not settle at l2 {l2:g}: give a larger --l2, for classes that can be told apart "
        "perfectly have no best weights without it"
    )


def _check(labels: Labels, task: TaskKind, names: Sequence[str]) -> None:
    share = targets(labels, task, len(names)).mean(0)
    for name, value in zip(names, share, strict=True):
        if value in (0, 1):
            has = "no training case shows" if value == 0 else "every training case shows"
            raise InputError(f"{has} {name}: a head cannot be fitted; give training cases with and without it")
