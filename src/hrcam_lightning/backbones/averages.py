"""Images that a network can only average: what comes out says where its cells look."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIMS = (1, 2, 3)
_CONVOLUTIONS = {f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in _DIMS}
_MAX_POOLS = {f"max_pool{dims}d" for dims in _DIMS}
_ALIKE = {"pad", "constant_pad_nd", "interpolate", *(f"avg_pool{dims}d" for dims in _DIMS)}  # same for all channels
_REDUCTIONS = {"mean", "sum", "amax", "amin", "norm", "linalg_vector_norm", "std", "var", "logsumexp"}
_BINARY = {"add", "sub", "rsub", "mul", "div", "rdiv", "true_divide", "maximum", "minimum"}
# To first order an elementwise function, or a norm, scales what it is given; it moves nothing.
_UNMOVED = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("hardswish", "hardtanh", "hardsigmoid", "sigmoid", "tanh", "softsign", "softmax", "threshold", "clamp", "clip"),
    *("exp", "log", "sqrt", "rsqrt", "square", "pow", "abs", "neg", "erf", "logsigmoid", "softshrink", "hardshrink"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
    *("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"),
}


class Averages(Tensor):
    """Images (B, C, *S), the first of them of ones, that turn each operation on them into an averaging counterpart.

    Convolutions average over their kernels whatever their weights; max pooling becomes mean pooling over the same
    windows; norms and activations leave things as they are, and so do constants; branches that are added or multiplied
    are averaged. What remains (padding, concatenation, views, mean pooling, interpolation) is linear already.

    Each mean is over the pixels that are there, padding left out: the first image stays 1, or 0 where there is nothing.

    What is reduced over the image, as in squeeze-and-excitation, or pooled to a fixed size looks at no place: that
    gives plain tensors of ones, and goes on as such.

    Modules and functions are treated alike; weights and buffers are not touched. Channels that are equal are stored
    once, which makes large networks quick.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Compute `func`, or what stands for it."""
        kwargs = kwargs or {}
        full = getattr(func, "__name__", "").partition(".")[0]
        name = full.strip("_")
        replaced: Tensor | None = None
        with torch._C.DisableTorchFunctionSubclass():  # the tensors of this block are plain ones
            if name.startswith("adaptive_") or (name in _REDUCTIONS and not _over_channels(*args[1:], **kwargs)):
                return torch.ones(func(*args, **kwargs).shape, device=args[0].device)
            if name in _UNMOVED:
                replaced = args[0].detach()
            elif name in _BINARY and len(args) > 1:
                replaced = _branches(args[0], args[1])
                if full.endswith("_") and not full.startswith("__"):  # in place: the tensor takes on the result
                    args[0].data = replaced
                    return args[0]
            elif name == "linear":
                replaced = args[0].mean(-1, keepdim=True).expand(*args[0].shape[:-1], len(args[1]))
            elif name in _CONVOLUTIONS:
                replaced = _convolve(func, *args, **kwargs)
            elif name in _MAX_POOLS:
                replaced = _pool(func, *args, **kwargs)
            elif name in _ALIKE:
                narrow = _distinct(args[0])
                replaced = _normalized(func(narrow, *args[1:], **kwargs))
                if replaced.shape[1] == narrow.shape[1]:
                    replaced = replaced.expand(-1, args[0].shape[1], *replaced.shape[2:])
                else:  # padded to the channels themselves
                    replaced = func(args[0], *args[1:], **kwargs)
        if replaced is not None:
            return replaced.as_subclass(cls)
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def _over_channels(dim: Any = None, *_: Any, **named: Any) -> bool:  # noqa: ANN401 - the arguments of any reduction
    dim = named.get("axis", dim)
    return dim == 1 or (isinstance(dim, (list, tuple)) and tuple(dim) == (1,))


def _distinct(image: Tensor) -> Tensor:
    """One channel instead of all where they are one and the same in memory."""
    return image[:, :1] if image.ndim > 1 and image.stride(1) == 0 else image


def _normalized(sums: Tensor) -> Tensor:
    """Sums to means: divided by what the image of ones has become, and 0 where that is 0."""
    return torch.nan_to_num(sums / sums[:1], nan=0.0)


def _branches(one: Tensor | float, other: Tensor | float) -> Tensor:
    """The mean of two images; of an image and a constant, the image, as large as their sum."""
    if isinstance(one, Averages) and isinstance(other, Averages):
        mean = _normalized(_distinct(one) + _distinct(other))
        channels = max(one.shape[1], other.shape[1])
        return mean.expand(-1, channels, *mean.shape[2:]) if mean.ndim > 1 else mean
    image, constant = (one, other) if isinstance(one, Averages) else (other, one)
    assert isinstance(image, Tensor)
    return image + torch.zeros_like(constant) if isinstance(constant, Tensor) else image.detach()


def _convolve(
    func: Callable[..., Tensor],
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001 - moves nothing
    *settings: Any,  # noqa: ANN401 - stride, padding and so on
    **named: Any,  # noqa: ANN401
) -> Tensor:
    """Mean over the kernel and over the channels of each group, given to all output channels of the group."""
    groups = settings[3] if len(settings) > 3 else named.pop("groups", 1)
    transposed = "transpose" in func.__name__
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    if len(settings) > 4:  # of a transposed convolution, where `groups` stands between output_padding and dilation
        named["dilation"] = settings[4]
    inputs = weight.shape[0] if transposed else weight.shape[1] * groups
    if image.shape[1] != inputs:
        raise RuntimeError(f"a convolution takes {inputs} channels, but gets {image.shape[1]}")
    distinct = _distinct(image)
    groups = min(groups, distinct.shape[1])
    batch, _, *size = distinct.shape
    grouped = distinct.reshape(batch * groups, -1, *size).mean(1, keepdim=True)
    kernel = torch.ones(1, 1, *weight.shape[2:]).to(image)
    sums = func(grouped, kernel, None, *settings[:3], **named)
    cells = sums.shape[2:]
    means = _normalized(sums.view(batch, groups, *cells))
    if groups == 1:
        return means.expand(batch, outputs, *cells)
    return means.repeat_interleave(outputs // groups, dim=1)


def _pool(
    func: Callable[..., Tensor],
    image: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # noqa: ARG001 - torch's signature
) -> Tensor:
    """Mean over each window of a max pooling."""
    distinct = _distinct(image)
    batch, channels, *size = distinct.shape
    flat = distinct.reshape(batch * channels, 1, *size)
    cells = func(flat, kernel_size, stride, padding, dilation, ceil_mode).shape[2:]
    dims = len(size)
    kernel, step, border, spread = (
        (value,) * dims if isinstance(value, int) else tuple(value)
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    # All windows that ceil_mode may ask for fit into one more window's length of padding.
    after = [(p, p + d * k) for p, d, k in zip(border, spread, kernel, strict=True)]
    padded = F.pad(flat, list(itertools.chain(*reversed(after))))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    sums = convolve(padded, torch.ones(1, 1, *kernel).to(image), None, step, 0, spread)
    for axis, count in enumerate(cells):
        sums = sums.narrow(2 + axis, 0, count)
    sums = sums.reshape(batch, channels, *cells)
    return _normalized(sums).expand(batch, image.shape[1], *cells)
