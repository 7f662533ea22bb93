"""What to draw: the specification of a set of phantoms, read from and written to YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from synth.acquisition import AcquisitionSpec
from synth.anatomy import Anatomy  # noqa: TC001 - annotations are read to read YAML
from synth.cue import Cue, MarkerCue, SiteCue
from synth.families import StructureLossFamily
from synth.parts import DistractorSpec, LesionSpec, NoiseSpec, TextureSpec, UniformAnatomy
from synth.reading import SpecError, plain, read, require, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

Splits = dict[str, int]
SPLITS = ("train", "val", "test", "reversed")
NORMAL = "normal"


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """A whole set of phantoms.

    Attributes:
        shape: voxels along each of 2 or 3 axes.
        spacing_mm: size of a voxel along each axis.
        lesions: the lesion classes, by name.
        prevalence: probability that a case is abnormal; multilabel: that it has a class, each class alone.
        splits: default number of cases in each split; in ``reversed``, a test split, the cue is reversed.
        acquisition: how the scanner sees the object, if not as it is.
        sites: scanners by name, each as likely, instead of one ``acquisition``; ``cases.csv`` names the site.
        distractors: what looks like a lesion and means nothing, by name.
        cue: a spurious cue.
    """

    name: str
    task: Literal["binary", "multiclass", "multilabel"]
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    lesions: dict[str, LesionSpec]
    purpose: str = ""
    prevalence: float = 0.5
    splits: Splits = field(default_factory=lambda: {"train": 400, "val": 50, "test": 50})
    anatomy: Anatomy = field(default_factory=UniformAnatomy)
    texture: TextureSpec = field(default_factory=TextureSpec)
    noise: NoiseSpec = field(default_factory=NoiseSpec)
    acquisition: AcquisitionSpec | None = None
    sites: dict[str, AcquisitionSpec] | None = None
    distractors: dict[str, DistractorSpec] | None = None
    cue: Cue | None = None

    def __post_init__(self) -> None:
        """Check what the parts cannot check alone."""
        require(len(self.shape) in (2, 3), "shape", self.shape, "have 2 or 3 axes")
        require(min(self.shape) >= 4, "shape", self.shape, "be at least 4 along each axis")
        matching = len(self.spacing_mm) == len(self.shape)
        require(matching, "spacing_mm", self.spacing_mm, f"have one value for each of the {len(self.shape)} axes")
        require(min(self.spacing_mm) > 0, "spacing_mm", self.spacing_mm, "be above 0")
        rule = f"be another for {len(self.shape)} axes: this one has {' or '.join(map(str, self.anatomy.dimensions))}"
        require(len(self.shape) in self.anatomy.dimensions, "anatomy.kind", self.anatomy.kind, rule)
        require(0 <= self.prevalence <= 1, "prevalence", self.prevalence, "lie between 0 and 1")
        check_splits(self.splits)
        one = len(self.lesions) == 1 if self.task == "binary" else len(self.lesions) >= 1
        rule = "name exactly one class for the task binary" if self.task == "binary" else "name a class"
        require(one, "lesions", sorted(self.lesions), rule)
        for name, lesion in self.lesions.items():
            if name == NORMAL or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                rule = f"be made of letters, digits, _ and -, and not be {NORMAL!r}"
                raise SpecError(f"is not a class name: it must {rule}", key=f"lesions.{name}")
            self._check_size(f"lesions.{name}", lesion)
            self._check_place(f"lesions.{name}", lesion)
        for name, distractor in (self.distractors or {}).items():
            self._check_size(f"distractors.{name}", distractor)
            self._check_place(f"distractors.{name}", distractor)
        self._check_acquisition()
        self._check_cue()

    def _check_size(self, key: str, lesion: LesionSpec) -> None:
        dimensions = len(self.shape)
        shortest = lesion.semi_axes(lesion.radius_mm[0], lesion.elongation[1], dimensions)[-1]
        longest = lesion.semi_axes(lesion.radius_mm[1], lesion.elongation[1], dimensions)[0]
        finest = lesion.family.finest_mm(shortest)
        part = (
            "shortest semi-axis" if finest == shortest else f"half-width of the finest part of a {lesion.family.kind}"
        )
        rule = f"be at most the {part}, {finest:.3g} mm"
        require(lesion.edge_mm <= finest, f"{key}.edge_mm", lesion.edge_mm, rule)
        half = max(self.spacing_mm) / 2
        rule = f"keep the shortest semi-axis, {shortest:.3g} mm, at or above half a voxel, {half:.3g} mm"
        require(shortest >= half, f"{key}.radius_mm", lesion.radius_mm, rule)
        rule = f"have no part finer than half a voxel, {half:.3g} mm, as its half-width of {finest:.3g} mm is"
        require(finest >= half, f"{key}.family", lesion.family.kind, rule)
        field_mm = min((n - 1) * step for n, step in zip(self.shape, self.spacing_mm, strict=True))
        width = 2 * (longest * lesion.family.reach + lesion.edge_mm)
        rule = f"fit the field: at its longest it spans {width:.3g} mm of {field_mm:.3g} mm"
        require(width <= field_mm, f"{key}.radius_mm", lesion.radius_mm, rule)

    def _check_place(self, key: str, lesion: LesionSpec) -> None:
        if lesion.tissue is not None:
            rule = f"be a tissue of the anatomy {self.anatomy.kind}: {', '.join(self.anatomy.tissues)}"
            require(lesion.tissue in self.anatomy.tissues, f"{key}.tissue", lesion.tissue, rule)
        if isinstance(lesion.family, StructureLossFamily):
            names = ", ".join(self.anatomy.structures) or "none"
            rule = f"be a structure of the anatomy {self.anatomy.kind}, which has {names}"
            name = lesion.family.structure
            require(name in self.anatomy.structures, f"{key}.family.structure", name, rule)

    def _check_acquisition(self) -> None:
        if self.sites is not None:
            require(len(self.sites) > 1, "sites", sorted(self.sites), "name at least two sites")
            alone = self.acquisition is None
            require(alone, "sites", sorted(self.sites), "replace acquisition: set one of the two")
        for key, scanner in self.scanners.items():
            flat = len(self.shape) == 2 and scanner.slice_mm > 0
            where = f"sites.{key}" if self.sites else "acquisition"
            require(not flat, f"{where}.slice_mm", scanner.slice_mm, "be 0 in a field of 2 axes")
            longest = max(n * step for n, step in zip(self.shape, self.spacing_mm, strict=True))
            rule = f"be at most the field's longest side, {longest:.3g} mm, where there is a bias field"
            require(scanner.bias == 0 or scanner.bias_mm <= longest, f"{where}.bias_mm", scanner.bias_mm, rule)

    def _check_cue(self) -> None:
        if self.cue is None:
            require(not self.splits.get("reversed"), "splits.reversed", self.splits.get("reversed"), "have a cue")
            return
        rule = f"be a class: {', '.join(self.lesions)}"
        require(self.cue.tied_to in (None, *self.lesions), "cue.tied_to", self.cue.tied_to, rule)
        if isinstance(self.cue, SiteCue):
            rule = f"be one of the sites: {', '.join(self.sites or {}) or 'there are none'}"
            require(self.cue.site in (self.sites or {}), "cue.site", self.cue.site, rule)
        elif isinstance(self.cue, MarkerCue):
            field_mm = min(n * step for n, step in zip(self.shape[:2], self.spacing_mm[:2], strict=True))
            rule = f"be at most a quarter of the field, {field_mm / 4:.3g} mm"
            require(self.cue.size_mm <= field_mm / 4, "cue.size_mm", self.cue.size_mm, rule)
        else:
            reach = min(n * step for n, step in zip(self.shape[:2], self.spacing_mm[:2], strict=True)) / 2
            rule = f"leave the rings in the field, at most {reach - 1.5 * self.cue.width_mm:.3g} mm"
            fits = self.cue.radius_mm + 1.5 * self.cue.width_mm <= reach
            require(fits, "cue.radius_mm", self.cue.radius_mm, rule)

    @property
    def scanners(self) -> dict[str, AcquisitionSpec]:
        """The scanner of each site; one without a name where there are no sites."""
        return dict(self.sites) if self.sites else {"": self.acquisition or AcquisitionSpec()}

    @property
    def cued_class(self) -> str | None:
        """The class that the cue gives away; None if there is no cue."""
        return None if self.cue is None else self.cue.tied_to or next(iter(self.lesions))

    def reversed(self) -> PhantomSpec:
        """Return the same specification with the cue's dose reversed."""
        return self if self.cue is None else replace(self, cue=replace(self.cue, dose=1 - self.cue.dose))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K channels of masks and maps."""
        names = tuple(self.lesions)
        return (NORMAL, *names) if self.task == "multiclass" and self.prevalence < 1 else names

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that a label may hold."""
        return (NORMAL, *self.lesions) if self.task == "binary" else self.classes

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PhantomSpec:
        """Build a specification from plain data.

        Raises:
            SpecError: an unknown or missing key, a value of the wrong type or out of its range.
        """
        spec: PhantomSpec = read(cls, values)
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, object] | None = None) -> PhantomSpec:
        """Read a specification from YAML.

        Args:
            path: the file.
            overrides: values that replace the file's, by dotted key: ``{"lesions.lesion.dprime": [4, 6]}``.

        Raises:
            SpecError: not YAML, or not a valid specification.
            OSError: the file cannot be read.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SpecError(f"is not valid YAML: {' '.join(str(error).split())}", key=str(path)) from None
        for key, value in (overrides or {}).items():
            _override(values, key, value)
        return cls.from_dict(values)

    def to_yaml(self, path: str | Path) -> None:
        """Write the specification as YAML."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True)
        Path(path).write_text(text, encoding="utf-8")


def check_splits(splits: Mapping[str, int], key: str = "splits") -> None:
    """Check names and numbers of the splits.

    Raises:
        SpecError: an unknown split, a negative number, or no case at all.
    """
    for name, count in splits.items():
        if name not in SPLITS:
            raise unknown(name, key, SPLITS)
        require(count >= 0, f"{key}.{name}", count, "be at least 0")
    require(sum(splits.values()) > 0, key, dict(splits), "hold at least one case")


def _override(values: object, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values, dict):
            break
        values = values.setdefault(parent, {})
    if not isinstance(values, dict):
        raise SpecError("cannot be set: what it lies in is not a mapping", key=key)
    values[last] = value
