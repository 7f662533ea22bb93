"""Bringing images to a common scale: by their own values, by those of the training images, or by a fixed window."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Shorthand = Literal["zscore", "minmax", "none"]

# A value that fills this share of a scan is its padding: noise and tissue spread over more values than that.
PADDING = 0.1
# Sign, exponent and the first 11 bits of the fraction: a bin is 0.05 % wide, whatever the unit of an image is.
BITS = 20


@dataclass(frozen=True)
class Normalization:
    """How images are scaled, each channel alone.

    Args:
        kind: ``zscore`` (mean 0, standard deviation 1), ``minmax`` (0 to 1), ``percentile`` (`low` and `high` percent
            become 0 and 1, what lies beyond is cut), ``window`` (the values `low` and `high` become 0 and 1, what lies
            beyond is cut; for CT) or ``none``.
        over: What mean, deviation and percentiles are taken of: each ``image``, the ``foreground`` of each image, or
            all voxels of all ``training`` images, measured once and kept in the checkpoint.
        low: Lower percentage, or value of the window.
        high: Upper percentage, or value of the window.
    """

    kind: Literal["zscore", "minmax", "percentile", "window", "none"]
    over: Literal["image", "foreground", "training"] = "image"
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        bounds = "" if self.low is None else f" {self.low:g} to {self.high:g}"
        return f"{self.kind}{bounds}" + (f" over {self.over}" if self.over != "image" else "")

    def __post_init__(self) -> None:
        bounded = self.kind in ("percentile", "window")
        if not bounded and not self.low is self.high is None:
            raise InputError(f"data.normalization: {self.kind} has no low and high; they are of percentile and window")
        if bounded and (self.low is None or self.high is None or not self.low < self.high):
            example = "low: 1, high: 99" if self.kind == "percentile" else "low: -160, high: 240"
            raise InputError(
                f"data.normalization: {self.kind} needs low and high, the lower one first, "
                f"for example {{kind: {self.kind}, {example}}}"
            )
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:  # type: ignore[operator]
            raise InputError(f"data.normalization: {self.low:g} and {self.high:g} are not percentages, 0 to 100")
        if self.over != "image" and self.kind not in ("zscore", "percentile"):
            raise InputError(f"data.normalization: over {self.over} is for zscore and percentile, not for {self.kind}")

    @classmethod
    def of(cls, given: Shorthand | Normalization) -> Normalization:
        """The rule that the user wrote as a word or in full."""
        return given if isinstance(given, Normalization) else cls(given)


@dataclass(frozen=True)
class Scaling:
    """A rule, with what it needs to know of the training images.

    Attributes:
        rule: What the user asked for.
        low: Value of each channel that becomes 0; None where the rule goes by the image itself.
        span: How much above `low` becomes 1, one number a channel.
    """

    rule: Normalization
    low: tuple[float, ...] | None = None
    span: tuple[float, ...] | None = None

    def __call__(self, voxels: Floats) -> Floats:
        """Scale an image (C, *S). A constant channel becomes 0, unless training images or a window say otherwise.

        Raises:
            InputError: If the training images had another number of channels.
        """
        rule = self.rule
        if rule.kind == "none":
            return voxels
        wide = voxels.astype(np.float64)
        if self.low is not None and self.span is not None:
            if len(self.low) != len(voxels):
                raise InputError(
                    f"the training images had {len(self.low)} channels and this image has {len(voxels)}: "
                    "give images with the same channels"
                )
            low, span = _column(self.low, voxels.ndim), _column(self.span, voxels.ndim)
        else:
            low, span = _own_bounds(wide, rule)
        wide -= low
        wide /= np.where(span > 0, span, 1)
        if rule.kind in ("percentile", "window"):
            np.clip(wide, 0, 1, out=wide)
        return np.asarray(wide, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        plain = {
            name: None if value is None else list(value) for name, value in (("low", self.low), ("span", self.span))
        }
        return {"rule": asdict(self.rule), **plain}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Scaling:
        """What `state` wrote."""
        low, span = (None if state[name] is None else tuple(state[name]) for name in ("low", "span"))
        return cls(Normalization(**state["rule"]), low, span)


def measure(rule: Normalization, images: Iterable[Floats]) -> Scaling:
    """Measure what a rule needs to know of the training images, one image (C, *S) in memory at a time.

    Every voxel weighs the same. Percentiles are the lowest value that so many percent of the voxels do not exceed,
    with the last bits of its fraction left out: at most 0.05 % off, exact for whole numbers up to 4096.

    Raises:
        InputError: If images differ in their number of channels.
    """
    sums: list[_Moments | _Histogram] = []
    for image in images:
        if not sums:
            sums = [_Moments() if rule.kind == "zscore" else _Histogram() for _ in image]
        if len(sums) != len(image):
            raise InputError(f"training images have {len(sums)} and {len(image)} channels; all need the same ones")
        for channel, values in zip(sums, image, strict=True):
            channel.add(values)
    bounds = [channel.bounds(rule) for channel in sums]
    return Scaling(rule, tuple(low for low, _ in bounds), tuple(span for _, span in bounds))


class _Moments:
    """Mean and squared deviation of a stream, joined image by image (Chan et al., 1979): no large sums to cancel."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Floats) -> None:
        wide = values.astype(np.float64)
        gap, total = float(wide.mean()) - self.mean, self.count + wide.size
        self.squares += float(wide.var()) * wide.size + gap**2 * self.count * wide.size / total
        self.mean += gap * wide.size / total
        self.count = total

    def bounds(self, rule: Normalization) -> tuple[float, float]:
        return self.mean, (self.squares / self.count) ** 0.5


class _Histogram:
    """Counts of values by the first bits of their float32, which sort like the values once signs are dealt with."""

    def __init__(self) -> None:
        self.counts = np.zeros(2**BITS, np.int64)

    def add(self, values: Floats) -> None:
        bits = np.ascontiguousarray(values, np.float32).ravel().view(np.uint32) >> (32 - BITS)
        half = 2 ** (BITS - 1)
        keys = np.where(bits >= half, 2 * half - 1 - bits.astype(np.int64), bits.astype(np.int64) + half)
        self.counts += np.bincount(keys, minlength=2 * half)

    def bounds(self, rule: Normalization) -> tuple[float, float]:
        low, high = (self._value(percent) for percent in (rule.low, rule.high))
        return low, high - low

    def _value(self, percent: float | None) -> float:
        assert percent is not None
        reached = np.cumsum(self.counts)
        key = int(np.searchsorted(reached, max(1.0, percent / 100 * float(reached[-1]))))
        half = 2 ** (BITS - 1)
        bits = key - half if key >= half else 2 * half - 1 - key
        return float(np.array([bits << (32 - BITS)], np.uint32).view(np.float32)[0]) + 0.0  # no negative zero


def foreground(values: Doubles) -> Bools:
    """Voxels of a channel (*S) that show something.

    A scan whose background is one value (skull-stripped, padded) is told by it: the most frequent value, if it fills a
    tenth of the scan and is darker than the mean of the rest. The foreground is all else, be it negative. In any
    other scan it is what lies above Otsu's threshold (IEEE Trans. SMC 1979), of a histogram of 256 bins.
    """
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    rest = values.size - int(counts[most])
    if (
        rest
        and counts[most] >= PADDING * values.size
        and found[most] < (values.sum() - found[most] * counts[most]) / rest
    ):
        return np.asarray(values != found[most])
    return np.asarray(values > _otsu(values))


def _otsu(values: Doubles) -> float:
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    above = values.size - below
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][(below * above * gap**2).argmax()])


def _own_bounds(wide: Doubles, rule: Normalization) -> tuple[Doubles, Doubles]:
    axes = tuple(range(1, wide.ndim))
    if rule.kind == "window":
        assert rule.low is not None
        assert rule.high is not None
        return np.array(rule.low), np.array(rule.high - rule.low)
    if rule.kind == "minmax":
        low = wide.min(axes, keepdims=True)
        return low, wide.max(axes, keepdims=True) - low
    if rule.over == "image" and rule.kind == "zscore":
        return wide.mean(axes, keepdims=True), wide.std(axes, keepdims=True)
    channels = [channel[foreground(channel)] if rule.over == "foreground" else channel for channel in wide]
    # A constant channel has no foreground: its own value, without a span.
    pairs = [_bounds(values, rule) if values.size else (wide[k].flat[0], 0.0) for k, values in enumerate(channels)]
    low, span = zip(*pairs, strict=True)
    return _column(low, wide.ndim), _column(span, wide.ndim)


def _bounds(values: Doubles, rule: Normalization) -> tuple[float, float]:
    if rule.kind == "zscore":
        return float(values.mean()), float(values.std())
    low, high = np.percentile(values, [rule.low, rule.high], method="inverted_cdf")
    return float(low), float(high - low)


def _column(values: Iterable[float], axes: int) -> Doubles:
    return np.array(list(values)).reshape(-1, *[1] * (axes - 1))
