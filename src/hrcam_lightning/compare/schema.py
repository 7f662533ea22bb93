"""What a comparison is: the YAML of ``hrcam compare``, read strictly."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

KEYS = (
    "name", "reference", "seeds", "data", "explainers", "common", "budget_minutes", "sort_by", "columns", "experiments",
    "small",
)  # fmt: skip
NEEDED = ("name", "reference", "data", "experiments")
WAYS = ("configs", "retrofit", "filtered_retrain")
OWN = ("-c", "--config", "--ckpt_path", "--data.cases", "--data.fresh", "--data.seed", "--data.spec", "--explainers",
       "--overwrite", "--print_config", "--seed_everything", "--seeds", "--trainer.default_root_dir")  # fmt: skip
"""Options that the comparison gives itself."""
COLUMNS = ("auroc", "pointing", "pixel_ap", "aupro")
METRICS = (
    "auroc", "accuracy", "pointing", "pixel_ap", "relevance_mass", "relevance_rank", "dice", "iou", "iobb", "aupro",
    "pxap", "lroc", "lesion/recall", "lesion/froc", "normal/false_activation", "box_acc", "box_acc_v2",
    "cue/relevance_mass", "displacement_px", "predicted/pointing", "predicted/pixel_ap",
)  # fmt: skip
"""What ``leaderboard.md`` may show and rows be sorted by; ``leaderboard.csv`` has more."""
STUDIED = ("auroc", "accuracy")
"""The same of studies, which score no map case by case."""

Wish = str | dict[str, Any]
"""An explainer: a name, or a mapping as ``--explainers`` takes it."""


@dataclass(frozen=True)
class DataSet:
    """A set of cases.

    Attributes:
        name: Its folder below the comparison's.
        cases: The table.
        generate: Specification and further words of ``hrcam-synth generate``, if it may be drawn.
        ceiling: Whether the ideal observer reads it once it is drawn.
        fresh: Whether networks are trained on phantoms of that specification drawn as they train, not on the set's.
    """

    name: str
    cases: Path
    generate: tuple[str, ...] = ()
    ceiling: bool = False
    fresh: bool = False

    @property
    def spec(self) -> str | None:
        """Specification of the phantoms that networks are trained on; None if they are trained on the set's cases."""
        return self.generate[0] if self.fresh else None


@dataclass(frozen=True)
class Experiment:
    """What is trained: a network of its own, a head on the network of another experiment, or all those of a study.

    Attributes:
        name: Its folder and its row, or what the rows of a study begin with.
        configs: Files of ``hrcam fit -c`` or, of a study, ``hrcam filtered-retrain -c``; none of a retrofit.
        overrides: Further words.
        retrofit: The experiment whose network is taken.
        explainers: Rows beside the map of its own.
        study: Whether it is a study.
    """

    name: str
    configs: tuple[str, ...]
    overrides: tuple[str, ...]
    retrofit: str | None
    explainers: tuple[Wish, ...]
    study: bool


@dataclass(frozen=True)
class Comparison:
    """A whole file.

    Attributes:
        name: Of the comparison.
        reference: Row that all others are compared with: an experiment, or a kind of a study, as ``mine/original``.
        seeds: Of the trainings.
        data: Sets of cases.
        experiments: By name, bases before their retrofits.
        budget_minutes: What a job may take; None for any time.
        sort_by: Metric that the rows are sorted by.
        columns: Metrics that ``leaderboard.md`` shows.
    """

    name: str
    reference: str
    seeds: tuple[int, ...]
    data: tuple[DataSet, ...]
    experiments: tuple[Experiment, ...]
    budget_minutes: float | None
    sort_by: str
    columns: tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """YAML that refuses two values of one key, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Look at the keys first."""
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value
            if not isinstance(name, str):
                raise InputError(f"line {key.start_mark.line + 1}: a key is a list or a mapping; give it a name")
            if name in seen:
                raise InputError(f"line {key.start_mark.line + 1}: '{name}' is there twice; give one another name")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_comparison(path: Path, *, small: bool = False) -> Comparison:
    """Read the file.

    Args:
        path: YAML.
        small: Let the keys of its section ``small`` take the place of the file's own.

    Raises:
        InputError: If it cannot be used; says which key, and why.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of configs/compare/") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        return _comparison(_mapping(content, "the file", KEYS), small)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _comparison(content: dict[str, Any], small: bool) -> Comparison:
    section = _mapping(content.pop("small", {}), "small", KEYS[1:-1])
    if small:
        if not section:
            raise InputError("has no section 'small': leave --small out")
        content = {**content, **section} | ({"name": f"{content['name']}_small"} if "name" in content else {})
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise InputError(f"'{missing[0]}' is missing; {', '.join(NEEDED)} are needed")
    seeds = content.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise InputError(f"seeds is {seeds!r}, but is a list of whole numbers of at least 0")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {seeds} holds one twice")
    budget = content.get("budget_minutes")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0):
        raise InputError(f"budget_minutes is {budget!r}, but is a time above 0")
    common = _words(content.get("common", []), "common")
    explainers = _explainers(content.get("explainers", []), "explainers")
    named = _mapping(content["experiments"], "experiments")
    experiments = [_experiment(name, value, common, explainers) for name, value in named.items()]
    studies = _studies(experiments)
    fits = [one.name for one in experiments if one.retrofit is None]
    for one in experiments:
        if one.retrofit is not None and one.retrofit not in fits:
            trained = f"none of the experiments that are trained ({', '.join(fits)})"
            raise InputError(f"experiments.{one.name}.retrofit is '{one.retrofit}', which is {trained}")
    reference = content["reference"]
    if not isinstance(reference, str):
        raise InputError(f"reference is {reference!r}, but is the name of an experiment ({', '.join(named)})")
    if (reference.partition("/")[0] if studies else reference) not in named:
        raise InputError(f"reference is '{reference}', which is none of the experiments ({', '.join(named)})")
    columns = content.get("columns", list(STUDIED if studies else COLUMNS))
    if not isinstance(columns, list) or not columns or not all(isinstance(column, str) for column in columns):
        raise InputError(f"columns is {columns!r}, but is a list of metrics, as [{', '.join(COLUMNS)}]")
    sort_by = content.get("sort_by", "auroc" if studies else "pixel_ap")
    metrics = STUDIED if studies else METRICS
    for metric in (*columns, sort_by):
        if metric not in metrics:
            of = " of studies" * bool(studies)
            raise InputError(f"columns and sort_by know no metric '{metric}'{of}; there are {', '.join(metrics)}")
    data = tuple(_data(name, value) for name, value in _mapping(content["data"], "data").items())
    for cases in data:
        if cases.fresh and studies:
            raise InputError(f"data.{cases.name}.fresh: a study filters the images of a set; leave 'fresh' out")
    return Comparison(
        name=_name(content["name"], "name"),
        reference=reference,
        seeds=tuple(seeds),
        data=data,
        experiments=tuple(sorted(experiments, key=lambda one: one.retrofit is not None)),
        budget_minutes=budget,
        sort_by=sort_by,
        columns=tuple(columns),
    )


def _experiment(name: str, value: object, common: tuple[str, ...], explainers: tuple[Wish, ...]) -> Experiment:
    place = f"experiments.{_name(name, 'experiments')}"
    content = _mapping(value, place, (*WAYS, "overrides", "explainers"))
    ways = [way for way in WAYS if content.get(way) not in (None, [])]
    if len(ways) != 1:
        raise InputError(
            f"{place} needs either 'configs', to be trained, or 'retrofit', the experiment it is made of, or "
            "'filtered_retrain', the files of a study"
        )
    base, study = content.get("retrofit"), ways == ["filtered_retrain"]
    configs = content[ways[0]] if base is None else []
    if not isinstance(configs, list) or not all(isinstance(config, str) for config in configs):
        raise InputError(f"{place}.{ways[0]} is {configs!r}, but is a list of files, as [configs/demo.yaml]")
    overrides = _words(content.get("overrides", []), f"{place}.overrides")
    own = _explainers(content["explainers"], f"{place}.explainers") if "explainers" in content else explainers
    if study and own:
        raise InputError(f"{place} is a study, which has no rows of explainers: give it '--explainer' in its overrides")
    # A base brings the common words along.
    return Experiment(name, tuple(configs), overrides if base else (*common, *overrides), base, own, study)


def _studies(experiments: Sequence[Experiment]) -> list[str]:
    """Names of those that are studies: all of them, or none."""
    studies = [one.name for one in experiments if one.study]
    others = [one.name for one in experiments if not one.study]
    if studies and others:
        raise InputError(
            f"experiments.{studies[0]} is a study and experiments.{others[0]} is none: a study scores no maps, and "
            "its networks are those of their last step; put studies into a file of their own"
        )
    return studies


def _data(name: str, value: object) -> DataSet:
    place = f"data.{_name(name, 'data')}"
    content = _mapping(value, place, ("cases", "generate", "ceiling", "fresh"))
    cases, generate = content.get("cases"), content.get("generate", "")
    if not isinstance(cases, str):
        raise InputError(f"{place}.cases is {cases!r}, but is a table, as data/demo/cases.csv")
    if not isinstance(generate, str):
        raise InputError(f"{place}.generate is {generate!r}, but is a specification, as configs/synth/demo.yaml")
    ceiling, fresh = (_flag(content.get(key, False), f"{place}.{key}") for key in ("ceiling", "fresh"))
    if generate and Path(cases).name != "cases.csv":
        raise InputError(f"{place}.cases is {cases}, but a set that is drawn has its table in cases.csv")
    words = _split(generate, f"{place}.generate")
    if fresh and not words:
        raise InputError(f"{place}.fresh draws phantoms as networks train: name their specification under 'generate'")
    # Training phantoms are drawn from the file as it stands, and of seeds above 0, which is that of the set.
    other = [word for word in words if word.startswith("--se")]  # --set and --seed, shortened too
    if fresh and other:
        raise InputError(f"{place}.fresh draws from {words[0]} as it stands: give 'generate' a file without {other[0]}")
    return DataSet(name, Path(cases), words, ceiling, fresh)


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{place} is {value!r}, but is true or false")
    return value


def _mapping(value: object, place: str, keys: Collection[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or (keys is None and not value):
        raise InputError(f"{place} must be a mapping of names to values, but is {value!r}")
    unknown = [key for key in value if keys is not None and key not in keys]
    if unknown:
        raise InputError(f"{place} has no key '{unknown[0]}'; there are {', '.join(keys or ())}")
    return dict(value)


def _name(value: object, place: str) -> str:
    """A name that may be a folder."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise InputError(f"{place}: {value!r} is no name of letters, digits, '_', '.' and '-'")
    return value


def _words(value: object, place: str) -> tuple[str, ...]:
    """Words of a command line, one or several a text."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InputError(f"{place} is {value!r}, but is a list of options, as ['--trainer.max_epochs 8']")
    words = tuple(word for text in value for word in _split(text, place))
    taken = [word for word in words if word.partition("=")[0] in OWN]
    if taken:
        raise InputError(f"{place} gives {taken[0]}, which the comparison gives itself")
    return words


def _split(text: str, place: str) -> tuple[str, ...]:
    """As a shell would."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{place}: {text!r} has a quote that is not closed ({error})") from error


def _explainers(value: object, place: str) -> tuple[Wish, ...]:
    if not isinstance(value, list) or not all(isinstance(wish, str | dict) for wish in value):
        raise InputError(f"{place} is {value!r}, but is a list of explainers, as [gradcam, {{method: layercam}}]")
    return tuple(value)
