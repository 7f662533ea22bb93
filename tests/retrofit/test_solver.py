"""The convex problem: against scikit-learn, a closed form, and what λ is there for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, minimize
from sklearn.linear_model import LogisticRegression

from hrcam_lightning import InputError
from hrcam_lightning.retrofit import features, solver
from hrcam_lightning.retrofit.choice import Candidate, candidates, choose, score
from hrcam_lightning.retrofit.equivariance import SHRINKAGE
from hrcam_lightning.retrofit.features import Floats, Pooled
from hrcam_lightning.retrofit.solver import Problem, Solution, losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from hrcam_lightning.data.contract import TaskKind

NAMES = {"binary": ["a"], "multiclass": ["a", "b", "c"], "multilabel": ["a", "b", "c"]}
KINDS: list[TaskKind] = ["binary", "multiclass", "multilabel"]


def _data(kind: TaskKind, cases: int = 300, channels: int = 8, seed: int = 0) -> Pooled:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(cases, channels)) * 10.0 ** rng.uniform(-3, 3, channels) + rng.normal(size=channels)
    signal = ((values - values.mean(0)) / values.std(0)) @ rng.normal(size=(channels, len(NAMES[kind]))) + rng.normal(
        size=(cases, 1)
    )
    if kind == "multiclass":
        labels = signal.argmax(1)
    else:
        labels = (signal > 0).astype(np.int64)
        labels = labels[:, 0] if kind == "binary" else labels
    return Pooled(values.astype(np.float32), labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_without_lambda_the_loss_is_that_of_scikit_learn(kind: TaskKind, l2: float) -> None:
    data = _data(kind)
    problem = Problem.of(data, kind, NAMES[kind])
    found = problem.solve(l2, 0.0)
    standard = (data.values - problem.mean) / problem.scale
    oracle = LogisticRegression(C=1 / (l2 * len(standard)), tol=1e-10, max_iter=10_000)
    columns = data.labels.T if kind == "multilabel" else [data.labels]
    fits = [oracle.__class__(**oracle.get_params()).fit(standard, column) for column in columns]
    logits = np.column_stack([fit.decision_function(standard) for fit in fits])
    assert found.loss == pytest.approx(losses(logits, data.labels, kind).mean(), abs=1e-4)
    weight = np.concatenate([fit.coef_ for fit in fits])
    penalised = found.loss + l2 / 2 * (found.weight**2).sum()
    assert penalised == pytest.approx(losses(logits, data.labels, kind).mean() + l2 / 2 * (weight**2).sum(), abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_give_the_logits_of_the_standardised_problem(kind: TaskKind) -> None:
    data = _data(kind)
    problem = Problem.of(data, kind, NAMES[kind])
    found = problem.solve(1e-2, 0.0)
    standard = (data.values.astype(np.float64) - problem.mean) / problem.scale
    np.testing.assert_allclose(problem.logits(found, data), standard @ found.weight.T + found.bias, atol=1e-5)


def test_what_neighbours_add_has_the_scale_of_its_channel() -> None:
    """However little it varies over the cases: scaled by its own deviation a border effect would be a feature."""
    data = _data("binary", channels=4)
    owners = np.array([0, 1, 0, 1])
    problem = Problem.of(data, "binary", ["a"], None, owners)
    np.testing.assert_array_equal(problem.scale, data.moments()[1][owners])
    standard = (data.values.astype(np.float64) - data.values.mean(0, dtype=np.float64)) / problem.scale
    np.testing.assert_allclose(problem.covariance, standard.T @ standard / len(standard), rtol=1e-6)
    found = problem.solve(1e-2, 0.0)
    np.testing.assert_allclose(problem.logits(found, data), standard @ found.weight.T + found.bias, atol=1e-4)
    root = np.random.default_rng(0).normal(size=(4, 4))
    parts = {"view": root @ root.T}
    held, whole = problem.held(parts, owners), Problem.of(data, "binary", ["a"], parts, owners)
    np.testing.assert_array_equal(held.penalty, whole.penalty)
    np.testing.assert_array_equal(held.solve(1e-2, 1.0).weight, whole.solve(1e-2, 1.0).weight)


def test_a_strong_penalty_has_the_closed_form_of_the_quadratic_problem() -> None:
    """For small logits the loss is ``log 2 − gᵀw + …``: the direction is ``(l2 + λQ)⁻¹ g``, its length refitted."""
    data = _data("binary")
    rng = np.random.default_rng(1)
    root = rng.normal(size=(8, 8))
    mean, scale = data.moments()
    problem = Problem.of(data, "binary", ["a"], {"view": root @ root.T * np.outer(scale, scale)})
    strength = 1e4
    found = problem.solve(1e-3, strength)
    standard = (data.values - mean) / scale
    slope = standard.T @ (data.labels - data.labels.mean()) / len(standard)
    direction = np.linalg.solve(strength * problem.penalty + 1e-3 * np.eye(8), slope)
    cosine = found.weight[0] @ direction / np.linalg.norm(found.weight) / np.linalg.norm(direction)
    assert cosine == pytest.approx(1, abs=1e-4)
    refitted = LogisticRegression(C=1e6).fit(standard @ direction[:, None] / direction.std(), data.labels)
    expected = refitted.decision_function(standard @ direction[:, None] / direction.std())[:, None]
    assert found.loss == pytest.approx(losses(expected, data.labels, "binary").mean(), abs=1e-3)


def test_the_penalty_is_minimised_with_the_loss() -> None:
    """Before lengths are refitted no step lowers the objective: the one-class problem on a grid of directions."""
    data = _data("binary", channels=2)
    _, scale = data.moments()
    penalty = np.array([[2.0, 0.5], [0.5, 1.0]])
    problem = Problem.of(data, "binary", ["a"], {"view": penalty * np.outer(scale, scale)})
    assert np.trace(problem.penalty) == pytest.approx(2 + 2 * SHRINKAGE)
    found = problem.solve(1e-2, 0.3)
    direction = found.weight[0] / np.linalg.norm(found.weight)
    standard = (data.values - problem.mean) / problem.scale

    def objective(weight: Floats) -> float:
        logits = (standard @ weight)[:, None]
        offsets = np.linspace(-1, 1, 81)
        loss = min(losses(logits + offset, data.labels, "binary").mean() for offset in offsets)
        return float(loss + 0.005 * weight @ weight + 0.15 * weight @ problem.penalty @ weight)

    grid = [
        (objective(length * np.array([np.cos(angle), np.sin(angle)])), angle)
        for angle in np.linspace(-np.pi, np.pi, 181)
        for length in np.linspace(0.2, 3, 29)
    ]
    best = min(grid)[1]
    assert direction @ [np.cos(best), np.sin(best)] > np.cos(np.deg2rad(3))


def test_lambda_takes_the_weight_from_a_channel_that_drifts() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    still = labels + rng.normal(size=400)
    drifting = labels + 0.8 * rng.normal(size=400)  # the better classifier of the two
    data = Pooled(np.column_stack([still, drifting]).astype(np.float32), labels)
    penalty = np.diag([1e-6, 1.0])
    free, held = (Problem.of(data, "binary", ["a"], {"view": penalty}).solve(1e-4, lam).weight[0] for lam in (0.0, 1e3))
    assert free[1] > free[0] > 0
    assert held[0] > 20 * held[1]


def test_portions_of_the_cases_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data("multilabel")
    whole = Problem.of(data, "multilabel", NAMES["multilabel"]).solve(1e-2, 0.0)
    monkeypatch.setattr(features, "CHUNK", 7 * 8)
    parts = Problem.of(data, "multilabel", NAMES["multilabel"]).solve(1e-2, 0.0)
    np.testing.assert_allclose(parts.weight, whole.weight, atol=1e-6)


def test_a_channel_that_does_not_vary_gets_no_weight() -> None:
    data = _data("binary")
    data.values[:, 3] = 7.0
    problem = Problem.of(data, "binary", ["a"], {"view": np.eye(8)})
    weight, _ = problem.folded(problem.solve(1e-3, 0.5))
    assert weight[0, 3] == 0
    assert np.isfinite(weight).all()


@pytest.mark.parametrize(("value", "sentence"), [(0, "no training case shows a"), (1, "every training case shows a")])
def test_one_label_alone_is_refused(value: int, sentence: str) -> None:
    data = Pooled(np.ones((4, 2), np.float32), np.full(4, value))
    with pytest.raises(InputError, match=sentence):
        Problem.of(data, "binary", ["a"])


def test_the_largest_lambda_within_one_standard_error_is_chosen() -> None:
    def one(strength: float, loss: float) -> Candidate:
        return Candidate(strength, 0.1, Solution(np.zeros((1, 1)), np.zeros(1), 0, 0), loss, 0.05, 0.9)

    found = [one(0, 0.42), one(0.1, 0.40), one(1, 0.449), one(10, 0.46)]
    assert choose(found).equivariance == 1


def test_each_lambda_has_the_ridge_of_the_lowest_validation_loss() -> None:
    data, held_out = _data("binary", cases=30), _data("binary", cases=200, seed=0)
    problem = Problem.of(data, "binary", ["a"], {"view": np.diag(data.moments()[1] ** 2)})
    ridges, strengths = (1e-3, 1e-1, 10.0), (0.0, 1.0)
    found = candidates(problem, held_out, strengths, ridges)
    assert [one.equivariance for one in found] == [0, 1]
    for one in found:
        alone = []
        for l2 in ridges:
            logits = problem.logits(problem.solve(l2, one.equivariance), held_out)
            alone.append(losses(logits, held_out.labels, "binary").mean())
        assert one.val_loss == pytest.approx(min(alone), rel=1e-6)
        assert one.l2 == ridges[int(np.argmin(alone))]


def test_the_score_of_a_single_label_is_undefined() -> None:
    assert np.isnan(score(np.zeros((3, 1)), np.ones(3, np.int64), "binary"))
    assert score(np.array([[0.0], [2.0], [1.0]]), np.array([0, 1, 1]), "binary") == 1
    assert score(np.eye(3), np.array([0, 1, 1]), "multiclass") == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_those_of_finite_differences(kind: TaskKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both problems, the weights' and the lengths', in the variables that are handed to the optimiser."""
    data = _data(kind, cases=40, channels=4)
    root = np.random.default_rng(2).normal(size=(4, 4)) * data.moments()[1][:, None]
    problem = Problem.of(data, kind, NAMES[kind], {"view": root @ root.T})
    dimensions, rng = [], np.random.default_rng(3)

    def spy(objective: Callable[[Floats], tuple[float, Floats]], first: Floats, **options: object) -> OptimizeResult:
        place = first + rng.normal(size=first.shape)
        value, slope = objective(place)
        steps = 1e-5 * np.eye(len(first))
        expected = [(objective(place + step)[0] - objective(place - step)[0]) / 2e-5 for step in steps]
        assert np.isfinite(value)
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-8)
        dimensions.append(len(first))
        return minimize(objective, first, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(solver, "minimize", spy)
    problem.solve(0.1, 0.3)
    classes = len(NAMES[kind])
    assert dimensions == [classes * 5, classes * 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.0, 1e-4])
def test_classes_that_are_told_apart_perfectly_need_a_ridge(kind: TaskKind, strength: float) -> None:
    values = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    labels = (values[:, :3] > 0).astype(np.int64)
    labels = {"binary": labels[:, 0], "multiclass": values[:, :3].argmax(1), "multilabel": labels}[kind]
    problem = Problem.of(Pooled(values, labels), kind, NAMES[kind], {"view": np.eye(5)})
    with pytest.raises(InputError, match=r"do not settle at l2 0: give a larger --l2"):
        problem.solve(0.0, strength)
    assert np.abs(problem.solve(1e-4, strength).weight).max() < 50


def test_lengths_that_are_not_found_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second problem is checked as the first is."""
    data = _data("binary")
    problem = Problem.of(data, "binary", ["a"], {"view": np.diag(data.moments()[1] ** 2)})

    def give_up(objective: object, first: Floats, **options: Any) -> OptimizeResult:
        if len(first) == 2:
            options["options"] = {"maxiter": 0}
        return minimize(objective, first, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(solver, "minimize", give_up)
    problem.solve(1e-2, 0.0)
    with pytest.raises(InputError, match=r"do not settle at l2 0\.01"):
        problem.solve(1e-2, 10.0)
