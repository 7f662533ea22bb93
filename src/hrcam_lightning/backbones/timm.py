"""The convolutional networks of timm, optional."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from hrcam_lightning.backbones.backbone import Backbone
from hrcam_lightning.backbones.measure import measure_levels
from hrcam_lightning.backbones.weights import fitting_weights
from hrcam_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


class TimmBackbone(Backbone):
    """The feature pyramid of a network of timm, 2D; where its cells lie is measured.

    Pretrained weights are adapted to the number of channels by timm: for one channel the first convolution's weights
    are summed over red, green and blue; for any other number they are repeated and scaled by 3 / channels. Either way
    an image whose channels are equal gives what its RGB copy would give.

    Args:
        channels: Number of image channels, any.
        dims: Number of spatial axes, 2.
        name: Name in timm, such as ``resnet50`` or ``convnext_tiny``.
        pretrained: Fetch timm's own weights for this name.
        weights: File with the network's weights instead, under timm's names, with or without its classifier, see
            `fitting_weights`.

    Raises:
        InputError: If timm is missing, the name is unknown, the network has no pyramid, or the weights do not fit.
    """

    def __init__(
        self, channels: int, dims: int, name: str, pretrained: bool = False, weights: str | None = None
    ) -> None:
        super().__init__()
        if dims != 2:
            raise InputError(f"timm has 2D networks only, but the images are {dims}D: use MonaiBackbone")
        if pretrained and weights is not None:
            raise InputError("pretrained fetches weights and weights names a file: give one of them")
        self.channels, self.brings_weights = channels, pretrained or weights is not None
        self.network = _network(name, channels, pretrained, weights)
        count = len(self.network.feature_info.channels())  # type: ignore[operator, union-attr]
        self.levels = measure_levels(self.network, channels, dims, [f"level {n} of {name}" for n in range(count)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, levels[i].channels, *S_i) of each resolution, fine to coarse."""
        return list(self.network(images))


def _network(name: str, channels: int, pretrained: bool, weights: str | None) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError("TimmBackbone needs timm: pip install 'hrcam-lightning[timm]'") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0)
        raise InputError(f"timm has no network {name!r}; nearest are {', '.join(close)}")
    overlay: dict[str, Any] | None = None
    if weights is not None:
        # timm itself would leave what it does not find in the file at random.
        whole = timm.create_model(name, in_chans=channels, num_classes=0)
        classifier = whole.pretrained_cfg.get("classifier") or ()
        unused = [classifier] if isinstance(classifier, str) else list(classifier)
        overlay = {"state_dict": fitting_weights(whole.state_dict(), weights, unused)}
    settings = {"features_only": True, "in_chans": channels, "pretrained": pretrained or weights is not None}
    try:
        network: nn.Module = timm.create_model(name, pretrained_cfg_overlay=overlay, **settings)
    except OSError as error:
        raise InputError(
            f"the weights of {name} cannot be fetched ({' '.join(str(error).split())}): give a local file as weights"
        ) from error
    except RuntimeError as error:
        raise InputError(f"{weights or name}: {' '.join(str(error).split())[:300]}") from error
    return network
