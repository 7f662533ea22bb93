"""What every decoder keeps: the output's invariants, batches, precision, geometry, and that it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hrcam_lightning import InputError
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.decoders import FPN, PAN, PYLON, DeepLabV3Plus, Li2018, UNet
from hrcam_lightning.geometry import Level, Resampling, resample
from hrcam_lightning.pooling import LogSumExpPooling, MaxPooling, MeanPooling
from tests.decoders.models import DECODERS, make_images, make_model

SIZES = [(16, 24), (19, 21), (9, 8, 11)]
BOTH: list[Resampling] = ["receptive_field", "half_pixel"]
NAMES = sorted(DECODERS)


@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_maps_pool_to_the_logits(name: str, size: tuple[int, ...], resampling: Resampling) -> None:
    images = make_images(size)
    peaked = make_model(DECODERS[name], len(size), MaxPooling(), resampling)(images)
    assert peaked.maps.shape == (2, 3, *size)
    assert torch.equal(peaked.maps.flatten(2).amax(-1), peaked.logits)
    spread = make_model(DECODERS[name], len(size), MeanPooling(), resampling)(images)
    assert spread.bias.abs().min() > 0
    torch.testing.assert_close(spread.maps.flatten(2).mean(-1) + spread.bias, spread.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(spread.maps + spread.bias.view(3, *(1,) * len(size)), peaked.maps)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_level_maps_lie_on_the_levels_that_the_decoder_names(name: str) -> None:
    model = make_model(DECODERS[name], 2, MeanPooling())
    output = model(make_images((19, 21)))
    for level_map, level in zip(output.level_maps, model.decoder.levels, strict=True):
        expected = tuple(-(-pixels // int(stride)) for pixels, stride in zip((19, 21), level.stride, strict=True))
        assert level_map.shape[2:] == expected


@pytest.mark.parametrize("size", [(19, 21), (9, 8, 11)])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_batch_is_its_cases_one_by_one(name: str, size: tuple[int, ...]) -> None:
    model = make_model(DECODERS[name], len(size), MaxPooling())
    images = make_images(size, batch=3)
    together = model(images)
    for index in range(3):
        alone = model(images[index : index + 1])
        torch.testing.assert_close(alone.maps[0], together.maps[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_half_precision_gives_float32_maps_near_the_exact_ones(name: str) -> None:
    model = make_model(DECODERS[name], 2, MaxPooling())
    images = make_images((32, 32))
    exact = model(images)
    dtypes = set()

    def see(_: nn.Module, __: object, output: torch.Tensor) -> None:
        dtypes.add(output.dtype)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(see)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images)
    assert dtypes == {torch.bfloat16}  # the convolutions are what half precision is for
    assert rough.maps.dtype == rough.logits.dtype == torch.float32
    assert (rough.maps - exact.maps).std() < 0.02 * exact.maps.std()
    # bf16 has 8 bits: class maps mixed in it would have far fewer distinct values.
    assert rough.level_maps[0].unique().numel() > 0.95 * exact.level_maps[0].unique().numel()


@pytest.mark.parametrize(("dims", "names"), [(2, NAMES), (3, ["pylon", "unet", "pan"])])
def test_a_few_steps_lower_the_loss(dims: int, names: list[str]) -> None:
    images, labels = make_images((16,) * dims, batch=6), torch.eye(3).repeat(2, 1)
    for name in names:
        model = make_model(DECODERS[name], dims, LogSumExpPooling()).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        losses = []
        for _ in range(12):
            loss = F.binary_cross_entropy_with_logits(model(images).logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0], name
        assert all(parameter.grad is not None for parameter in model.decoder.parameters()), name


# The grid of patches of li2018 lies on the image, not on the levels: it does not move with it.
@pytest.mark.parametrize("resampling", BOTH)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "li2018"])
@torch.no_grad()
def test_a_map_moves_by_the_stride_when_the_image_does(name: str, resampling: Resampling) -> None:
    depth = 4 if name == "pylon" else 3
    pools = name in (
        "pylon",
        "pan",
        "pan_nogap",
    )  # the coarsest grid of pyramid attention is 8 times the deepest level's
    stride = 2 ** (depth - 1) * (8 if pools else 1)
    size, middle, reach = 16 * max(stride, 16), 8 * max(stride, 16), 10
    model = make_model(DECODERS[name], 2, MaxPooling(), resampling, width=2, depth=depth)
    image = torch.zeros(1, 1, size, 16)
    image[0, 0, middle - 2 : middle + 3, 5:10] = 2
    here = model(image).maps[..., middle - reach : middle + reach, :]
    moved = model(image.roll(stride, dims=2)).maps[..., middle - reach + stride : middle + reach + stride, :]
    assert here.std() > 1e-3
    torch.testing.assert_close(moved, here, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["hrcam", "pylon_plain", "unet", "fpn", "deeplab"])
@torch.no_grad()
def test_symmetric_evidence_is_symmetric_about_its_pixel_where_receptive_fields_are_respected(name: str) -> None:
    image = torch.zeros(1, 1, 256, 16)
    image[0, 0, 125:132] = 2  # about pixel 128, on which cells of all levels lie
    lean = {}
    for resampling in BOTH:
        model = make_model(DECODERS[name], 2, MaxPooling(), resampling)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.copy_((parameter + parameter.flip(-2)) / 2)
        window = model(image).maps[..., 128 - 12 : 128 + 13, :]
        lean[resampling] = float((window - window.flip(-2)).abs().max() / window.std())
    assert lean["receptive_field"] < 1e-4
    assert lean["half_pixel"] > 20 * lean["receptive_field"]


@torch.no_grad()
def test_li_scores_patches_of_any_image() -> None:
    model = make_model(DECODERS["li2018"], 2, MaxPooling(), "half_pixel")
    decoder = model.decoder
    assert isinstance(decoder, Li2018)
    seen: list[torch.Tensor] = []
    decoder.head.register_forward_hook(lambda _, __, output: seen.append(output))
    images = make_images((33, 50))
    output = model(images)
    (patches,) = seen
    assert patches.shape == (2, 3, 7, 7)
    expected = F.interpolate(patches, (33, 50), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.level_maps[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_li_takes_a_patch_from_where_it_lies() -> None:
    """A ramp over the features, placed by the level's offset, is the same ramp over the patches."""
    level = Level(1, (4.0, 4.0), (1.5, 1.5))
    decoder = Li2018([level], 1, patches=4, width=1)
    pixel = torch.arange(32.0)
    ramp = (pixel[2::4] - 0.5).expand(1, 1, 8, 8)  # feature i looks at pixel 1.5 + 4 i
    seen: list[torch.Tensor] = []
    decoder.block.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    decoder.eval()([ramp], (32, 32))
    torch.testing.assert_close(seen[0][0, 0, 0], torch.tensor([3.5, 11.5, 19.5, 27.5]))


def test_unet_ends_at_image_resolution_whatever_the_finest_level() -> None:
    level = [Level(4, (stride,) * 2, (0.0, 0.0)) for stride in (2.0, 4.0, 8.0)]
    decoder = UNet(level, 2, widths=[8, 8, 8]).eval()
    (maps,) = decoder([torch.randn(1, 4, n, n) for n in (10, 5, 3)], (19, 19))
    assert maps.shape == (1, 2, 19, 19)
    assert decoder.levels[0].stride == (1.0, 1.0)
    assert len(decoder.blocks) == 3


@pytest.mark.parametrize(("stride", "expected"), [(16.0, (12, 24, 36)), (32.0, (6, 12, 18)), (1024.0, (1, 1, 1))])
def test_deeplabs_rates_reach_as_many_pixels_at_any_stride(stride: float, expected: tuple[int, ...]) -> None:
    decoder = DeepLabV3Plus([Level(2, (4.0,) * 3, (0.0,) * 3), Level(2, (stride,) * 3, (0.0,) * 3)], 1, width=2)
    dilations = [module.dilation for module in decoder.branches.modules() if isinstance(module, nn.Conv3d)]
    assert [d for d in dilations if d != (1, 1, 1)] == [(e,) * 3 for e in expected if e > 1]


@pytest.mark.parametrize("name", ["deeplab", "pan", "fpn_group", "fpn_instance", "deeplab_nogap", "pan_nogap", "fpn"])
@torch.no_grad()
def test_only_global_pooling_and_norms_of_the_image_carry_evidence_across_it(name: str) -> None:
    """The switches of PYLON's ablation: far from a change, the map may change only where something global is in it."""
    model = make_model(DECODERS[name], 2, MaxPooling(), depth=3)
    size = 160
    image = make_images((size, 24))
    changed = image.clone()
    changed[:, :, :4] += 3
    far = (model(changed).maps - model(image).maps)[..., size - 8 :, :].abs().max()
    if name in ("deeplab_nogap", "pan_nogap", "fpn"):
        assert far == 0
    else:
        assert far > 1e-3


def test_resampling_between_levels_is_what_the_model_is_told() -> None:
    levels = ConvPyramid(1, 2, width=2, depth=2).levels
    decoder = PYLON(levels, 1, width=2, n_up=1, use_pa=False)
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = torch.zeros(1, 2, 8, 8)
    for resampling in BOTH:
        up = decoder.ups[0](fine, x, levels[1], resampling) - decoder.ups[0](fine, x * 0, levels[1], resampling)
        torch.testing.assert_close(up, resample(x, levels[1], (8, 8), resampling, onto=levels[0]))


def _levels(number: int) -> tuple[Level, ...]:
    return ConvPyramid(1, 2, width=2, depth=number).levels


def test_too_few_levels_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"PYLON with n_up 3 needs 4 levels, but the backbone has 3: use a"):
        PYLON(_levels(3), 1)
    for make, name in [(UNet, "UNet"), (FPN, "FPN"), (DeepLabV3Plus, "DeepLabV3Plus"), (PAN, "PAN")]:
        with pytest.raises(InputError, match=f"{name} needs 2 levels, but the backbone has 1"):
            make(_levels(1), 1)


def test_arguments_out_of_range_are_refused_in_one_sentence() -> None:
    levels = _levels(4)
    with pytest.raises(InputError, match="n_up is 4"):
        PYLON(levels, 1, n_up=4)
    with pytest.raises(InputError, match="PYLON: width is 0"):
        PYLON(levels, 1, width=0)
    with pytest.raises(InputError, match=r"widths is \[8\], but 3 blocks need as many"):
        UNet(levels, 1, widths=[8])
    with pytest.raises(InputError, match="Li2018: patches is 0"):
        Li2018(levels, 1, patches=0)
    with pytest.raises(InputError, match="rates 0 is 0"):
        DeepLabV3Plus(levels, 1, rates=[0])


@pytest.mark.parametrize(("name", "size", "batch"), [("pan", 16, 1), ("deeplab", 16, 1), ("fpn_instance", 8, 2)])
def test_a_norm_of_single_values_is_refused_in_one_sentence(name: str, size: int, batch: int) -> None:
    model = make_model(DECODERS[name], 2, MaxPooling()).train()
    with pytest.raises(InputError, match="norm gets a single value a channel"):
        model(make_images((size, size), batch=batch))
