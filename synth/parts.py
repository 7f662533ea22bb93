"""The parts of a specification: anatomy, texture, noise and lesions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from synth.families import EllipsoidFamily, Family, StructureLossFamily
from synth.reading import SpecError, require

Range = tuple[float, float]
AMPLITUDES = ("dprime", "cnr", "delta")


@dataclass(frozen=True, kw_only=True)
class UniformAnatomy:
    """Tissue everywhere, of one intensity: the anatomy in which d′ is exact."""

    kind: Literal["uniform"] = "uniform"
    tissues: ClassVar[tuple[str, ...]] = ("tissue",)
    structures: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    tissue: float = 0.6

    def __post_init__(self) -> None:
        """Check the range."""
        require(self.tissue >= 0, "tissue", self.tissue, "be at least 0")

    @property
    def level(self) -> float:
        """Intensity of the tissue in which lesions lie."""
        return self.tissue


@dataclass(frozen=True, kw_only=True)
class HeadAnatomy:
    """A head: bright skull, dark rim of fluid, tissue and two dark ventricles.

    Attributes:
        size: extent of the turned head, as a fraction of the in-plane field; above 1 the field shows a part of it.
        aspect: width over length.
        rotation_deg: range of the rotation about each axis, degrees.
        shift: largest displacement from the middle of the field along each axis, as a fraction of the field.
        ventricles: scale of the ventricles, 1 for ordinary ones.
        skull, fluid, tissue, ventricle: intensities.
        white: intensity of white matter under a folded ribbon of cortex; without it, all brain is ``tissue``.
        cortex_mm: mean thickness of the ribbon.
    """

    kind: Literal["head"] = "head"
    structures: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    size: Range = (0.82, 0.92)
    aspect: Range = (0.76, 0.88)
    rotation_deg: Range = (-15.0, 15.0)
    shift: float = 0.03
    ventricles: Range = (0.8, 1.2)
    skull: float = 1.0
    fluid: float = 0.25
    tissue: float = 0.6
    ventricle: float = 0.3
    white: float | None = None
    cortex_mm: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.size[0] > 0, "size", self.size, "be above 0")
        require(self.aspect[0] > 0 and self.aspect[1] <= 1, "aspect", self.aspect, "lie above 0 and at most at 1")
        require(self.shift >= 0, "shift", self.shift, "be at least 0")
        whole, part = self.size[1] + 2 * self.shift <= 1, self.size[0] > 1
        room = f"leave room for the shift of {self.shift}, or lie above 1, so that the field shows a part of the head"
        require(whole or part, "size", self.size, room)
        inside = self.ventricles[0] > 0 and self.ventricles[1] <= 1.5
        require(inside, "ventricles", self.ventricles, "lie above 0 and at most at 1.5")
        if (self.white is None) != (self.cortex_mm is None):
            raise SpecError("must be set together with cortex_mm, or neither", key="white")
        if self.cortex_mm is not None:
            require(self.cortex_mm > 0, "cortex_mm", self.cortex_mm, "be above 0")

    @property
    def level(self) -> float:
        """Intensity of the tissue in which lesions lie."""
        return self.tissue

    @property
    def tissues(self) -> tuple[str, ...]:
        """Parts of the brain in which a lesion may be asked to lie."""
        return ("tissue",) if self.white is None else ("tissue", "white", "grey")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a texture: standard deviation and correlation length (of a Gaussian covariance)."""

    sd: float
    length_mm: float

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.sd >= 0, "sd", self.sd, "be at least 0")
        require(self.length_mm > 0, "length_mm", self.length_mm, "be above 0")


@dataclass(frozen=True, kw_only=True)
class PowerLawSpec:
    """Gaussian texture whose spectrum falls as f to the power -β; β near 3 looks like a mammogram."""

    sd: float
    beta: float = 3.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.sd >= 0, "sd", self.sd, "be at least 0")
        require(0 <= self.beta <= 6, "beta", self.beta, "lie between 0 and 6")


@dataclass(frozen=True, kw_only=True)
class LumpySpec:
    """Gaussian lumps at random places (Rolland & Barrett 1992).

    Attributes:
        sd: standard deviation of the texture.
        length_mm: standard deviation of a lump's shape.
        density: mean number of lumps in a square (3D: cube) of one ``length_mm`` a side; few are far from Gaussian.
    """

    sd: float
    length_mm: float
    density: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.sd >= 0, "sd", self.sd, "be at least 0")
        require(self.length_mm > 0, "length_mm", self.length_mm, "be above 0")
        require(self.density > 0, "density", self.density, "be above 0")


@dataclass(frozen=True, kw_only=True)
class ClusteredLumpySpec:
    """Clusters of elongated blobs (Bochud, Abbey & Eckstein 1999).

    Attributes:
        sd: standard deviation of the texture.
        blob_mm: shorter and longer semi-axis of a blob.
        spread_mm: standard deviation of the blobs' places around the middle of their cluster, along each axis.
        blobs: mean number of blobs in a cluster.
        density: mean number of clusters in a square (3D: cube) of one ``spread_mm`` a side.
    """

    sd: float
    blob_mm: Range = (2.0, 5.0)
    spread_mm: float = 8.0
    blobs: float = 20.0
    density: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.sd >= 0, "sd", self.sd, "be at least 0")
        for key in ("spread_mm", "blobs", "density"):
            require(getattr(self, key) > 0, key, getattr(self, key), "be above 0")
        require(self.blob_mm[0] > 0, "blob_mm", self.blob_mm, "be above 0")


@dataclass(frozen=True, kw_only=True)
class TextureSpec:
    """Stationary texture: the sum of independent parts, of which the first two are Gaussian."""

    components: tuple[Component, ...] = ()
    power_law: PowerLawSpec | None = None
    lumpy: LumpySpec | None = None
    clustered_lumpy: ClusteredLumpySpec | None = None


@dataclass(frozen=True, kw_only=True)
class NoiseSpec:
    """Noise of the acquisition.

    Attributes:
        kind: what noise.
        sd: in intensity units, that of each Gaussian channel; of Poisson noise, that at the anatomy's tissue.
    """

    kind: Literal["gaussian", "rician", "poisson"] = "gaussian"
    sd: float = 0.03

    def __post_init__(self) -> None:
        """Check the range."""
        require(self.sd > 0, "sd", self.sd, "be above 0, for without noise d′ has no meaning")


@dataclass(frozen=True, kw_only=True)
class LesionSpec:
    """One class of lesion. Exactly one of ``dprime``, ``cnr`` and ``delta`` sets how subtle it is.

    Attributes:
        radius_mm: radius of the ball of equal volume (disc of equal area in 2D).
        dprime: detectability of the lesion known exactly, in the stationary texture and the noise.
        cnr: peak change over the standard deviation of texture and noise together.
        delta: peak change, in intensity units and unsigned.
        edge_mm: half-width of the soft edge.
        elongation: longest over shortest semi-axis.
        polarity: whether the lesion is brighter or darker than its tissue.
        count: number of lesions of the class in a case that has it.
        family: shape of the lesion; a bare name stands for its defaults.
        tissue: part of the anatomy in which the whole lesion lies.
        depth_mm: distance of its middle from the border of that tissue, or of the field.
        apart_mm: least distance from the lesions drawn before it.
    """

    radius_mm: Range
    dprime: Range | None = None
    cnr: Range | None = None
    delta: Range | None = None
    edge_mm: float = 1.0
    elongation: Range = (1.0, 1.0)
    polarity: Literal["bright", "dark"] = "bright"
    count: tuple[int, int] = (1, 1)
    family: Family = field(default_factory=EllipsoidFamily)
    tissue: str | None = None
    depth_mm: Range | None = None
    apart_mm: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        given = [name for name in AMPLITUDES if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"sets {' and '.join(given)}" if given else "sets none of them"
            raise SpecError(f"{got} but must set exactly one of {', '.join(AMPLITUDES)}")
        require(self.amplitude[0] >= 0, given[0], self.amplitude, "be at least 0 (darkness is set by polarity)")
        require(self.radius_mm[0] > 0, "radius_mm", self.radius_mm, "be above 0")
        require(self.edge_mm >= 0, "edge_mm", self.edge_mm, "be at least 0")
        require(self.elongation[0] >= 1, "elongation", self.elongation, "be at least 1")
        require(self.count[0] >= 1, "count", self.count, "be at least 1")
        require(self.apart_mm >= 0, "apart_mm", self.apart_mm, "be at least 0")
        if self.depth_mm is not None:
            require(self.depth_mm[0] >= 0, "depth_mm", self.depth_mm, "be at least 0")
        if isinstance(self.family, StructureLossFamily):
            require(self.polarity == "dark", "polarity", self.polarity, "be dark where structure is lost")

    @property
    def control(self) -> str:
        """Name of the quantity that sets the subtlety."""
        return next(name for name in AMPLITUDES if getattr(self, name) is not None)

    @property
    def amplitude(self) -> Range:
        """Range of the quantity that sets the subtlety."""
        value: Range = getattr(self, self.control)
        return value

    def semi_axes(self, radius_mm: float, elongation: float, dimensions: int) -> tuple[float, ...]:
        """Return the semi-axes in mm, longest first, of the ellipsoid of that volume and elongation."""
        short = radius_mm * elongation ** (-1 / dimensions)
        return (short * elongation, *[short] * (dimensions - 1))


@dataclass(frozen=True, kw_only=True)
class DistractorSpec(LesionSpec):
    """Something that looks like a lesion, occurs in every class alike and means nothing.

    Attributes:
        prevalence: probability that a case has it, whatever its label.
    """

    prevalence: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        LesionSpec.__post_init__(self)
        require(0 <= self.prevalence <= 1, "prevalence", self.prevalence, "lie between 0 and 1")
