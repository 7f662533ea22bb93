from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import PhantomSpec, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGS = sorted((Path(__file__).parents[2] / "configs/synth").glob("*.yaml"))
GOOD: dict[str, Any] = {
    "name": "test",
    "task": "binary",
    "shape": [32, 32],
    "spacing_mm": [1.0, 1.0],
    "lesions": {"lesion": {"radius_mm": [2, 3], "dprime": 5}},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_specification_says_what_runs_it_and_survives_the_way_through_yaml(
    path: Path, tmp_path: Path
) -> None:
    assert f"--config configs/synth/{path.name}" in path.read_text(encoding="utf-8").splitlines()[0]
    spec = PhantomSpec.from_yaml(path)
    spec.to_yaml(tmp_path / "again.yaml")
    assert PhantomSpec.from_yaml(tmp_path / "again.yaml") == spec
    assert PhantomSpec.from_dict(spec.to_dict()) == spec


positive = st.floats(0.01, 10, allow_nan=False)


@settings(deadline=None, max_examples=50)
@given(
    low=positive,
    extra=positive,
    control=st.sampled_from(["dprime", "cnr", "delta"]),
    components=st.lists(st.fixed_dictionaries({"sd": positive, "length_mm": positive}), max_size=3),
    prevalence=st.floats(0, 1),
    anatomy=st.sampled_from([{"kind": "head", "skull": 0.9}, {"kind": "uniform", "tissue": 0.5}]),
)
def test_any_specification_survives_the_way_through_yaml(
    low: float,
    extra: float,
    control: str,
    components: list[dict[str, float]],
    prevalence: float,
    anatomy: object,
) -> None:
    lesion = {"radius_mm": [2, 3], control: [low, low + extra], "polarity": "dark"}
    changed = {"prevalence": prevalence, "texture": {"components": components}, "anatomy": anatomy}
    spec = PhantomSpec.from_dict({**GOOD, **changed, "lesions": {"lesion": lesion}})
    assert PhantomSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict()))) == spec
    assert spec.lesions["lesion"].amplitude == (low, low + extra)


def test_a_number_is_a_range_of_one_value_and_exponents_without_a_dot_are_numbers(
    make_spec: Callable[..., PhantomSpec],
) -> None:
    spec = make_spec(lesions={"a": {"radius_mm": 3, "cnr": 2}}, noise=yaml.safe_load("sd: 3e-2"))
    assert spec.lesions["a"].radius_mm == (3.0, 3.0)
    assert spec.noise.sd == 0.03


@pytest.mark.parametrize(
    ("task", "prevalence", "classes", "labels"),
    [
        ("binary", 0.5, ("a",), ("normal", "a")),
        ("multilabel", 0.5, ("a", "b"), ("a", "b")),
        ("multiclass", 0.5, ("normal", "a", "b"), ("normal", "a", "b")),
        ("multiclass", 1.0, ("a", "b"), ("a", "b")),
    ],
)
def test_classes_and_labels_follow_the_task(
    make_spec: Callable[..., PhantomSpec],
    task: str,
    prevalence: float,
    classes: tuple[str, ...],
    labels: tuple[str, ...],
) -> None:
    lesions = {name: {"radius_mm": 3, "cnr": 2} for name in ("a", "b")[: 1 if task == "binary" else 2]}
    spec = make_spec(task=task, prevalence=prevalence, lesions=lesions)
    assert spec.classes == classes
    assert spec.labels == labels


def lesion(**replaced: object) -> dict[str, object]:
    return {"lesions": {"lesion": {"radius_mm": [2, 3], "dprime": 5, **replaced}}}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"shap": [3, 3]}, "shap is not a known key; did you mean shape?"),
        (lesion(radus_mm=3), "lesions.lesion.radus_mm is not a known key; did you mean radius_mm?"),
        ({"noise": {"zzz": 1}}, "noise.zzz is not a known key; known here: kind, sd"),
        ({"splits": {"trian": 9}}, "splits.trian is not a known key; did you mean train?"),
        (lesion(radius_mm=[-2, 3]), "lesions.lesion.radius_mm is [-2.0, 3.0] but must be above 0"),
        (lesion(radius_mm=[3, 2]), "lesions.lesion.radius_mm is [3, 2] but must have its low end first"),
        (lesion(radius_mm=[3, 40]), "lesions.lesion.radius_mm is [3.0, 40.0] but must fit the field"),
        (
            lesion(radius_mm=[0.3, 3], edge_mm=0.1),
            "must keep the shortest semi-axis, 0.3 mm, at or above half",
        ),
        (
            lesion(edge_mm=2.5),
            "lesions.lesion.edge_mm is 2.5 but must be at most the shortest semi-axis, 2 mm",
        ),
        (lesion(elongation=0.5), "lesions.lesion.elongation is [0.5, 0.5] but must be at least 1"),
        (lesion(dprime=-5), "lesions.lesion.dprime is [-5.0, -5.0] but must be at least 0"),
        (lesion(dprime="high"), "lesions.lesion.dprime is 'high' but must be a finite number"),
        (lesion(dprime=float("nan")), "lesions.lesion.dprime is nan but must be a finite number"),
        (lesion(cnr=3), "lesions.lesion sets dprime and cnr but must set exactly one of dprime, cnr, delta"),
        (lesion(dprime=None), "lesions.lesion sets none of them but must set exactly one"),
        (lesion(count=[0, 2]), "lesions.lesion.count is [0, 2] but must be at least 1"),
        (lesion(count=1.5), "lesions.lesion.count is 1.5 but must be a whole number"),
        (lesion(polarity="grey"), "lesions.lesion.polarity is 'grey' but must be one of bright, dark"),
        (lesion() | {"prevalence": 1.2}, "prevalence is 1.2 but must lie between 0 and 1"),
        ({"noise": {"sd": 0}}, "noise.sd is 0.0 but must be above 0"),
        ({"texture": {"components": [{"sd": 1}]}}, "texture.components[0].length_mm is missing"),
        ({"anatomy": {"kind": "foot"}}, "anatomy.kind is 'foot' but must be one of uniform, head"),
        ({"anatomy": {"kind": "head", "shift": 0.3}}, "anatomy.size is [0.82, 0.92] but must leave room"),
        ({"anatomy": {"kind": "head", "size": [0.9, 1.4]}}, "anatomy.size is [0.9, 1.4] but must leave room"),
        ({"shape": [64]}, "shape is [64] but must have 2 or 3 axes"),
        (
            {"spacing_mm": [1, 1, 1]},
            "spacing_mm is [1.0, 1.0, 1.0] but must have one value for each of the 2",
        ),
        ({"splits": {"train": 0}}, "splits is {'train': 0} but must hold at least one case"),
        ({"lesions": {}}, "lesions is [] but must name exactly one class"),
        ({"lesions": {"normal": {"radius_mm": 2, "cnr": 1}}}, "lesions.normal is not a class name"),
        ({"lesions": {"a|b": {"radius_mm": 2, "cnr": 1}}}, "lesions.a|b is not a class name"),
        ({"task": "regression"}, "task is 'regression' but must be one of binary, multiclass, multilabel"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_key_and_value(
    changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        PhantomSpec.from_dict({**GOOD, **changed})
    assert str(caught.value).startswith(sentence) or sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_replace_values_by_dotted_key(tmp_path: Path, make_spec: Callable[..., PhantomSpec]) -> None:
    make_spec().to_yaml(tmp_path / "spec.yaml")
    changed = {"lesions.lesion.cnr": None, "lesions.lesion.dprime": [4, 6], "anatomy.kind": "head"}
    spec = PhantomSpec.from_yaml(tmp_path / "spec.yaml", {"anatomy": {}, **changed})
    assert spec.lesions["lesion"].dprime == (4.0, 6.0)
    assert spec.anatomy.kind == "head"
