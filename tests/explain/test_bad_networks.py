"""Networks, layers, classes and options that cannot be: one sentence each, saying what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrcam_lightning import InputError, LocalizationTask
from hrcam_lightning.backbones import ConvPyramid
from hrcam_lightning.callbacks.explainers import Explainer, explainers_of
from hrcam_lightning.explain import FLOORS, explain
from tests.explain.small import ANY_NETWORK, LOOKING, images, near, network

GRADIENTS = ("gradcam", "gradcam++", "xgradcam", "respondcam", "hirescam", "elementwise", "layercam", "zoomcam")


class _Odd(nn.Module):
    """Layers of every kind that cannot be explained, and a side branch that the classes are not read from."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Sigmoid())
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.pair = _Pair()
        self.whole = _Whole()
        self.side = nn.Conv2d(3, 1, 1)
        self.unused = nn.Conv2d(3, 1, 1)
        self.head = nn.Linear(3, 2)
        self.kept: Any = None

    def forward(self, values: Tensor) -> Tensor:
        values = self.trunk(values)
        self.kept = self.side(values)
        values = self.twice(self.twice(values))
        self.whole(values)
        scores: Tensor = self.head(self.pair(values)[0].mean((2, 3)))
        return scores


class _Pair(nn.Module):
    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values, values


class _Whole(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.round().long()


class _Through(nn.Module):
    """Cuts the way of the gradients."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.inner, self.cut = network(), cut

    def forward(self, values: Tensor) -> Tensor:
        scores: Tensor = self.inner(values)
        if self.cut == "detach":
            return scores.detach()
        if self.cut == "argmax":
            return nn.functional.one_hot(scores.argmax(1), 4)
        with torch.no_grad():
            again: Tensor = self.inner(values)
        return again


class _Returns(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.inner, self.value = network(), value

    def forward(self, values: Tensor) -> Any:
        self.inner(values)
        return self.value


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": ["trunk.2"]}, r"has no layer 'trunk.2'; nearest are trunk"),
        ({"layers": ["trunk.0", "heda"]}, r"has no layer 'heda'; nearest are head"),
        ({"layers": []}, "name at least one layer"),
        ({"layers": ["trunk", "trunk"]}, "none twice"),
        ({"layers": "trunk"}, "give a list of names, 'deepest' or 'pyramid'"),
        ({"layers": 3}, "give a list of names, 'deepest' or 'pyramid'"),
        ({"layers": ["side"]}, "the layer side is not on the way to the score: name a layer that"),
        ({"layers": ["trunk.1", "side"]}, "the layer side is not on the way to the score"),
        ({"layers": ["unused"]}, "the layer unused is not called in a forward pass: name one that is"),
        ({"layers": ["pair"]}, "the layer pair returns a tuple, not a tensor: name a layer inside it"),
        ({"layers": ["twice"]}, "the layer twice is called more than once in a forward pass: name one that is called"),
        ({"layers": ["head"]}, r"the layer head returns \(2, 2\), which has no places: name one that returns"),
        ({"layers": ["whole"]}, "the layer whole returns torch.int64: name one that returns real numbers"),
        ({"target": 2}, "target is 2, but the network tells the classes 0 to 1 apart"),
        ({"target": -1}, "tells the classes 0 to 1 apart"),
        ({"target": [0, 5]}, r"target is \[0, 5\], but"),
        ({"target": [0, 1, 0]}, "target names 3 classes for 2 samples: give one a sample, or one for all"),
        ({"target": torch.zeros(2, 2, dtype=torch.long)}, "target must be a class number, or one for each sample"),
        ({"target": 0.0}, "target must be a class number"),
        ({"target": "lesion"}, "target must be a class number"),
        ({"target": True}, "target must be a class number"),
        ({"score": "probability"}, "score is 'probability', but is one of logit, softmax, sigmoid, margin"),
        ({"resampling": "nearest"}, "resampling is 'nearest', but is one of receptive_field, half_pixel"),
        ({"chunk": 0}, "chunk is 0, but must be a whole number, at least 1"),
        ({"chunk": "all"}, "chunk is 'all', but must be"),
        ({"method": "grad-cam"}, "there is no explainer 'grad-cam'; nearest are gradcam"),
        ({"method": "lime"}, "there is no explainer 'lime'; nearest are "),
        ({"gamma": 2}, "gradcam has no option gamma: its options are relu, fusion"),
        ({"fusion": "median"}, "gradcam: fusion is 'median', but must be one of max, mean, sum, product"),
        ({"relu": "no"}, "gradcam: relu is 'no', but must be true or false"),
        ({"method": "layercam", "gamma": None}, "layercam: gamma is None, but must be a number"),
        ({"method": "occlusion", "fill": None}, "occlusion: fill is None, but must be a number"),
        ({"fusion": None}, "gradcam: fusion is None, but must be one of max, mean, sum, product"),
        ({"method": "random_weights", "seed": None}, "random_weights: seed is None, but must be a whole number"),
        ({"method": "layercam", "gamma": "x"}, "layercam: gamma is 'x', but must be a number"),
        ({"method": "occlusion", "patch": "big"}, "occlusion: patch is 'big', but must be pixels"),
        ({"method": "occlusion", "patch": 40}, "must be 1 <= step <= patch <= image"),
        ({"method": "occlusion", "patch": 2, "step": 3}, "must be 1 <= step <= patch <= image"),
        ({"method": "occlusion", "patch": [2, 2, 2]}, "but the images have 2 axes"),
        ({"method": "occlusion", "layers": ["trunk"]}, "occlusion looks at no layer by itself: leave layers out"),
        ({"method": "fullgrad", "layers": ["trunk"]}, "fullgrad looks at no layer by itself: leave layers out"),
        ({"method": "random", "layers": ["trunk"]}, "random looks at no layer: leave layers out"),
        ({"method": "edge", "relu": True}, "edge has no option relu: it has none"),
        ({"method": "random_weights", "of": "cma"}, "there is no explainer 'cma'; nearest are cam"),
        ({"method": "random_weights", "gamma": 1}, "gradcam has no option gamma"),
        ({"method": "random_weights", "seed": "x"}, "random_weights: seed is 'x', but must be a whole number"),
        ({"method": "model"}, "the network has no map of its own: 'model' is for networks of this package"),
        ({"method": "cam", "layers": ["trunk"]}, "cam needs a layer that is followed by mean pooling and one dense"),
        ({"method": "random", "target": 7}, "tells the classes 0 to 1 apart"),
    ],
)
def test_one_sentence_says_what_to_do(settings: dict[str, Any], sentence: str) -> None:
    asked = {"method": "gradcam", "layers": None, **settings}
    if asked["method"] not in ("gradcam", "cam", "layercam") or asked["layers"] is not None:
        asked = {key: value for key, value in asked.items() if key != "layers" or value is not None}
    else:
        asked["layers"] = ["trunk"]
    with pytest.raises(InputError, match=sentence) as caught:
        explain(_Odd(), images(2), **asked)
    assert "\n" not in str(caught.value)


def test_numbers_of_layers_are_names() -> None:
    assert torch.equal(explain(network(), images(2), layers=[0]), explain(network(), images(2), layers=["0"]))  # type: ignore[list-item]


def test_the_deepest_layer_is_one_that_is_called_once() -> None:
    class Model(nn.Module):
        """One ReLU serves all, the last layer too."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.relu = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

        def forward(self, values: Tensor) -> Tensor:
            found: Tensor = self.relu(self.two(self.relu(self.one(values)))).mean((2, 3))
            return found

    model = Model()
    near(explain(model, images(2)), explain(model, images(2), layers=["two"]))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("cut", ["detach", "argmax"])
def test_a_network_that_cannot_be_differentiated_is_told_from_a_layer_off_the_way(cut: str, name: str) -> None:
    with pytest.raises(
        InputError, match=r"cannot be differentiated from its scores to the layer .*: use a method without"
    ):
        explain(_Through(cut), images(2), name, layers=["inner.0"])
    with pytest.raises(InputError, match="cannot be differentiated from its scores to the image: use a method without"):
        explain(_Through(cut), images(2), "fullgrad")
    for other in ("scorecam", "ablationcam"):  # as it advises
        assert explain(_Through("detach"), images(2), other, layers=["inner.0"], target=0).shape == (2, 1, 16, 12)


def test_a_frozen_part_run_without_gradients_is_explained_from_its_last_layer() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = network()
            self.part, self.head = inner[0], inner[1:]

        def forward(self, values: Tensor) -> Tensor:
            with torch.no_grad():
                values = self.part(values)
            scores: Tensor = self.head(values)
            return scores

    near(explain(Model(), images(2), layers=["part"]), explain(network(), images(2), layers=["0"]))
    with pytest.raises(InputError, match=r"cannot be differentiated from its scores to the layer part\.2"):
        explain(Model(), images(2), layers=["part.2", "part"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", LOOKING)
def test_compiled_and_scripted_networks_hide_their_layers(name: str) -> None:
    model, part, own = network(), network(), network()
    part[0] = torch.compile(part[0])  # type: ignore[assignment]
    own.compile()
    scripted = torch.jit.trace(network(), images(1))  # type: ignore[no-untyped-call]
    if name == "occlusion":  # which looks at none
        near(explain(scripted, images(2), name, patch=8), explain(network(), images(2), name, patch=8))
        return
    # A copy of one that was compiled in place is not compiled, and is what random_weights looks at.
    for compiled in (torch.compile(model), part, *([own] if name != "random_weights" else [])):
        with pytest.raises(InputError, match=r"compiled by torch\.compile hides its layers: give the module that was"):
            explain(compiled, images(2), name)  # type: ignore[arg-type]
    if name != "random_weights":
        with pytest.raises(
            InputError, match="a TorchScript network hides its layers: give the module that it was made"
        ):
            explain(scripted, images(2), name)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_null_maps_do_not_mind_a_scripted_network() -> None:
    scripted = torch.jit.trace(network(), images(1))  # type: ignore[no-untyped-call]
    for name in FLOORS:
        if name != "random_weights":
            assert explain(scripted, images(2), name).shape == (2, 4, 16, 12)


def test_a_network_made_under_inference_mode_is_named_as_such() -> None:
    with torch.inference_mode():
        model = network()
    with pytest.raises(InputError, match=r"made under torch.inference_mode and can be given no gradients: make it out"):
        explain(model, images(2))
    assert explain(model, images(2), "scorecam").shape == (2, 4, 16, 12)
    assert all(part.requires_grad for part in model.parameters())


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.zeros(2), r"returns a tensor \(2,\), but logits \(batch, classes\)"),
        (torch.zeros(2, 4, 8, 8), r"returns a tensor \(2, 4, 8, 8\), but logits"),
        ((torch.zeros(2, 4),), "returns tuple, but logits"),
        ({"logits": torch.zeros(2, 4)}, "returns dict, but logits"),
    ],
)
@pytest.mark.parametrize("name", ANY_NETWORK)
def test_a_network_must_return_logits(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        explain(_Returns(value), images(2), name)


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [
        (torch.zeros(2, 2, 8, 8, dtype=torch.int64), "torch.int64, but .* are needed, 2D or 3D, of floating point"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), "torch.uint8, but"),
        (torch.zeros(2, 8, 8), r"images are \(2, 8, 8\) torch.float32, but \(batch, channel, axes...\) are needed"),
        (torch.zeros(2, 2, 8), r"images are \(2, 2, 8\)"),
        (torch.zeros(1, 1, 2, 8, 8, 8), r"images are \(1, 1, 2, 8, 8, 8\)"),
        (torch.zeros(0, 2, 8, 8), r"images are \(0, 2, 8, 8\)"),
        (torch.zeros(2, 2, 8, 8).numpy(), "images are a ndarray, but a tensor"),
    ],
)
@pytest.mark.parametrize("name", ["gradcam", "scorecam", "random"])
def test_images_must_be_a_batch(name: str, pictures: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        explain(network(), pictures, name)


def test_what_is_no_network_is_named_as_such() -> None:
    with pytest.raises(InputError, match=r"a network is needed, an nn\.Module, but got a function"):
        explain(lambda values: values, images(2))  # type: ignore[arg-type]


def test_a_lightning_task_is_read_as_its_network() -> None:
    task = LocalizationTask("multiclass", ["a", "b"], 2, 2, lambda c, d: ConvPyramid(c, d, width=4, depth=3))
    for part in task.network.decoder.parameters():
        nn.init.normal_(part)
    for name in ("model", "gradcam", "random"):
        assert torch.equal(explain(task, images(2), name), explain(task.network, images(2), name))
    with pytest.raises(InputError, match="the network is not built yet"):
        explain(LocalizationTask(), images(2))


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (["gradcma"], "explainers: there is no explainer 'gradcma'; nearest are gradcam"),
        ([{"layers": "pyramid"}], "names no method; there are model, cam"),
        ([{"method": 3}], "explainers: there is no explainer 3"),
        ([{"method": "gradcam", "target": 0}], "explainers: gradcam has no option target"),
        ([{"method": "gradcam", "gamma": 2}], "explainers: gradcam has no option gamma: its options are relu, fusion"),
        (["random", "random"], "two rows are called random: give one of them another name"),
        ([{"method": "gradcam", "name": "model"}], "two rows are called model"),
        ([{"method": "gradcam", "name": "lesion"}], "lesion is what figures of the model are called"),
        ([{"method": "gradcam", "name": "predicted"}], "predicted is what figures of the model are called"),
    ],
)
def test_rows_of_the_table_are_checked_before_anything_runs(wishes: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        explainers_of(wishes)


def test_a_row_keeps_its_settings() -> None:
    row = Explainer({"method": "layercam", "layers": ["0.2", "0"], "gamma": 3, "name": "fused"})
    assert row.name == "fused"
    near(row.maps(network(), images(2)), explain(network(), images(2), "layercam", layers=["0.2", "0"], gamma=3))
