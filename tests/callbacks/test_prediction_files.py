"""What is written of one predicted case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from hrcam_lightning.callbacks.drawing import overlay
from hrcam_lightning.callbacks.journal import Journal, fingerprint
from hrcam_lightning.callbacks.planes import draw_planes, overlay_volume
from hrcam_lightning.callbacks.prediction_files import Prediction, write_prediction
from hrcam_lightning.callbacks.stacks import SliceStacks
from hrcam_lightning.data.contract import SlicePlace
from hrcam_lightning.data.frame import Frame, Framing, Grid
from hrcam_lightning.errors import InputError
from tests.command_line import load

if TYPE_CHECKING:
    from pathlib import Path

LAS = np.array([[-0.5, 0, 0, 10], [0, 0.8, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1.0]])


SETTINGS = {"model.window": "None"}


def found_of(frame: Frame, maps: np.ndarray, **values: object) -> Prediction:
    rng = np.random.default_rng(0)
    image = rng.random(frame.grid.shape, dtype=np.float32)
    plain = {"bias": np.full(len(maps), 0.25, np.float32), "probabilities": np.linspace(0.9, 0.1, len(maps))}
    return Prediction("a/b c", image, maps.astype(np.float32), frame=frame, **{**plain, **values})  # type: ignore[arg-type]


def test_a_turned_volume_is_written_on_the_grid_of_its_file(tmp_path: Path) -> None:
    frame = Framing("RAS").of(Grid((6, 7, 5), LAS))
    maps = np.full((1, 6, 7, 5), -2.0)
    maps[0, 1, 2, 3] = 4.0  # on the network's grid, where the first axis is the other way round
    maps[0, 4, 4:6, 0] = 1.5
    (row,) = write_prediction(tmp_path, found_of(frame, maps), ["lesion"], [1.0], (-4, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_b_c_lesion.png", "a_b_c_map.nii.gz", "a_b_c_mask.nii.gz",
    ]  # fmt: skip
    written, mask = load(tmp_path / "a_b_c_map.nii.gz"), load(tmp_path / "a_b_c_mask.nii.gz")
    np.testing.assert_allclose(written.affine, LAS)
    assert written.header.get_xyzt_units()[0] == "mm"  # type: ignore[attr-defined]
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(written.dataobj), maps[0][::-1].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), maps[0][::-1] >= 1.0)
    assert mask.get_data_dtype() == np.uint8
    assert row == {
        "case": "a/b c", "class": "lesion", "probability": "0.9", "peak": "4", "peak_i": 4, "peak_j": 2, "peak_k": 3,
        "peak_x_mm": "8", "peak_y_mm": "-18.4", "peak_z_mm": "14", "lesions": 2, "lesion_voxels": 3,
        "lesion_mm3": "3.6",
    }  # fmt: skip


def test_what_a_crop_left_out_is_nan_and_never_a_lesion(tmp_path: Path) -> None:
    frame = Framing(shape=[4, 4, 4]).of(Grid((6, 4, 4), LAS))
    (row,) = write_prediction(tmp_path, found_of(frame, np.full((1, 4, 4, 4), 3.0)), ["lesion"], [1.0], (-4, 4))
    voxels = np.asarray(load(tmp_path / "a_b_c_map.nii.gz").dataobj)
    assert np.isnan(voxels[[0, 5]]).all()
    assert (voxels[1:5] == 3).all()
    assert row["lesion_voxels"] == 64
    assert row["peak_i"] == 1
    assert np.asarray(load(tmp_path / "a_b_c_mask.nii.gz").dataobj)[[0, 5]].max() == 0


def test_several_classes_are_a_fourth_axis_and_a_mask_needs_a_threshold_of_one_of_them(tmp_path: Path) -> None:
    frame = Framing().of(Grid((4, 5, 6), LAS))
    maps = np.random.default_rng(1).normal(size=(2, 4, 5, 6))
    rows = write_prediction(tmp_path, found_of(frame, maps), ["mass", "node"], [0.5, float("nan")], (-4, 4))
    written = np.asarray(load(tmp_path / "a_b_c_map.nii.gz").dataobj)
    np.testing.assert_array_equal(written, np.moveaxis(maps.astype(np.float32), 0, -1))
    mask = np.asarray(load(tmp_path / "a_b_c_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask[..., 0], written[..., 0] >= 0.5)
    assert mask[..., 1].max() == 0
    assert (tmp_path / "a_b_c_mass.png").exists()
    assert rows[0]["lesion_voxels"] == (maps[0].astype(np.float32) >= 0.5).sum()
    assert "lesions" not in rows[1]
    write_prediction(tmp_path / "none", found_of(frame, maps), ["mass", "node"], [float("nan")] * 2, (-4, 4))
    assert sorted(path.name for path in (tmp_path / "none").iterdir()) == [
        "a_b_c_map.nii.gz", "a_b_c_mass.png", "a_b_c_node.png",
    ]  # fmt: skip


def test_slices_and_pictures(tmp_path: Path) -> None:
    maps = np.arange(20.0).reshape(1, 4, 5)
    slice_frame, picture_frame = Framing().of(Grid((4, 5), LAS)), Framing(shape=[2, 5]).of(Grid((4, 5), None))
    (row,) = write_prediction(tmp_path / "nifti", found_of(slice_frame, maps), ["x"], [18.0], (-4, 4))
    written = load(tmp_path / "nifti/a_b_c_map.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), maps[0][..., None])
    np.testing.assert_allclose([float(row[f"peak_{axis}_mm"]) for axis in "xyz"], LAS[:3, :3] @ [3, 4, 0] + LAS[:3, 3])
    assert row["lesion_mm3"] == f"{2 * 0.5 * 0.8 * 3:.6g}"
    shown = np.asarray(Image.open(tmp_path / "nifti/a_b_c_x.png"))
    assert shown.shape == (5, 4, 3)  # the first axis to the right
    (row,) = write_prediction(tmp_path / "png", found_of(picture_frame, maps[:, :2]), ["x"], [8.5], (-4, 4))
    stored = np.load(tmp_path / "png/a_b_c_map.npy")
    np.testing.assert_array_equal(stored[0, 1:3], maps[0, :2])
    assert np.isnan(stored[0, [0, 3]]).all()
    mask = np.asarray(Image.open(tmp_path / "png/a_b_c_x_mask.png"))
    np.testing.assert_array_equal(mask[2], [0, 0, 0, 0, 255])
    assert mask.sum() == 255
    assert np.asarray(Image.open(tmp_path / "png/a_b_c_x.png")).shape == (4, 5, 3)
    assert (row["peak_i"], row["peak_j"], row["lesion_voxels"]) == (2, 4, 1)
    assert not {"peak_k", "peak_x_mm", "lesion_mm3"} & row.keys()


def test_a_nifti_slice_is_drawn_upright_with_its_bias_and_corners_join_a_lesion(tmp_path: Path) -> None:
    frame = Framing().of(Grid((4, 3), LAS))
    maps = np.zeros((1, 4, 3))
    maps[0, 1, 0] = maps[0, 2, 1] = 2.0
    (row,) = write_prediction(tmp_path, found_of(frame, maps, bias=np.array([-2.0])), ["x"], [1.0], (-4, 4))
    assert (row["lesions"], row["lesion_voxels"]) == (1, 2)
    picture = np.asarray(Image.open(tmp_path / "a_b_c_x.png")).astype(int)
    plain = np.ptp(picture, -1) <= 1  # evidence 0: the map and its bias cancel
    expected = np.zeros((3, 4), bool)  # the first axis to the right, the second upwards
    expected[2, 1] = expected[1, 2] = True
    np.testing.assert_array_equal(plain, expected)


def test_the_overlay_of_a_volume_is_that_of_its_slices() -> None:
    rng = np.random.default_rng(0)
    image, evidence = rng.random((4, 5, 6)), rng.normal(size=(4, 5, 6))
    whole = overlay_volume(image, evidence, (-2, 2))
    image[0, 0, 0], image[-1, -1, -1] = image.min(), image.max()
    flat = overlay(image.reshape(4, 30), evidence.reshape(4, 30), (-2, 2)).reshape(4, 5, 6, 3)
    np.testing.assert_array_equal(whole[1:3], flat[1:3])
    evidence[:] = np.nan
    grey = overlay_volume(image, evidence, (-3, 2))
    assert (np.ptp(grey.astype(int), -1) <= 1).all()  # no evidence, no colour; white is the middle of any scale


def test_planes_go_through_the_middle_and_the_peak_of_the_turned_volume() -> None:
    evidence = np.full((8, 10, 6), -1.0)
    evidence[1, 7, 4] = 5.0
    figure = draw_planes("a title", np.zeros((8, 10, 6)), evidence, LAS, (-5, 5))
    titles = [axis.get_title() for axis in figure.axes[:6]]
    # Numbered as in the file, and in the columns peak_i to peak_k; the first axis is shown the other way round.
    assert titles[:3] == ["sagittal, slice 3", "coronal, slice 5", "axial, slice 3"]
    assert titles[3:] == ["sagittal, slice 1", "coronal, slice 7", "axial, slice 4"]
    letters = [{text.get_text() for text in axis.findobj(Text)} for axis in figure.axes[3:6]]
    assert all({"P", "A"} <= letters[0] and {"L", "R"} <= some for some in letters[1:])
    sagittal, coronal, axial = (np.asarray(axis.images[0].get_array()) for axis in figure.axes[3:6])
    reddest = [np.unravel_index((shown[..., 0].astype(int) - shown[..., 2]).argmax(), shown.shape[:2]) for shown in
               (sagittal, coronal, axial)]  # fmt: skip
    assert reddest == [(5 - 4, 7), (5 - 4, 6), (9 - 7, 6)]  # rows run downwards, and up is superior or anterior
    assert figure.axes[3].get_aspect() == pytest.approx(3.0 / 0.8)
    turned = LAS[:, [2, 0, 1, 3]]  # the same patient, stored with the axial slices first
    figure = draw_planes("a title", np.zeros((6, 8, 10)), evidence.transpose(2, 0, 1), turned, (-5, 5))
    assert figure.axes[3].get_aspect() == pytest.approx(3.0 / 0.8)
    assert figure.axes[5].get_aspect() == pytest.approx(0.8 / 0.5)
    assert [axis.get_title() for axis in figure.axes[3:6]] == titles[3:]


def test_slices_come_in_any_order_and_make_one_volume() -> None:
    rng = np.random.default_rng(0)
    frame = Framing().of(Grid((3, 4, 5), LAS))
    maps, probabilities = rng.random((2, 3, 4, 5), np.float32), rng.random((4, 2), np.float32)
    for score, expected in (("max", probabilities.max(0)), ("mean", probabilities.mean(0))):
        stacks = SliceStacks(score)  # type: ignore[arg-type]
        volume = None
        for index in (2, 0, 3, 1):
            assert volume is None
            part = Prediction(
                f"v_{index}",
                np.full((3, 5), index, np.float32),
                maps[:, :, index],
                np.zeros(2, np.float32),
                probabilities[index],
                frame,
            )
            volume = stacks.add(SlicePlace("v", 1, index, 4), part)
        assert volume is not None
        assert volume.case == "v"
        np.testing.assert_array_equal(volume.maps, maps)
        np.testing.assert_array_equal(volume.image[0, :, 0], [0, 1, 2, 3])
        np.testing.assert_allclose(volume.probabilities, expected)


def test_a_case_that_another_process_does_anew_has_one_line(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path, rank) for rank in (0, 1))
    for journal, case in ((first, "a"), (second, "b"), (second, "x")):
        journal.begin("one", SETTINGS, resume=True)
        journal.add(case, [{"case": case, "probability": 0.1}], f"{case}.png 1")
    # x.png is another now: the second process had done it, and this time the first does.
    resumed = [Journal(tmp_path, rank) for rank in (0, 1)]
    found = [journal.begin("one", SETTINGS, resume=True) for journal in resumed]
    assert found == [{"a": "a.png 1", "b": "b.png 1", "x": "x.png 1"}] * 2
    for journal in resumed[::-1]:
        journal.tidy({"a", "b"})
    assert first.sources() == {"a": "a.png 1", "b": "b.png 1"}  # also if x can be read no more
    resumed[0].add("x", [{"case": "x", "probability": 0.9}], "x.png 2")
    resumed[1].add("y", [{"case": "y", "probability": 0.5}], "y.png 1")
    assert first.sources() == {"a": "a.png 1", "b": "b.png 1", "x": "x.png 2", "y": "y.png 1"}
    assert [rows[0]["probability"] for rows in first.rows().values()] == [0.1, 0.1, 0.9, 0.5]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".done-0.jsonl", ".done-1.jsonl"]
    assert first.head() == {"checkpoint": "one", "settings": SETTINGS}
    Journal(tmp_path / "none").tidy({"a"})
    assert not (tmp_path / "none").exists()


def test_a_journal_forgets_the_line_that_was_torn(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.begin("one", SETTINGS, resume=True) == {}
    journal.add("b", [{"case": "b"}], "b.png")
    journal.add("a", [{"case": "a"}], "a.png")
    with journal.path.open("a") as file:
        file.write('{"case": "c", "rows"')
    assert Journal(tmp_path).begin("one", SETTINGS, resume=True) == {"b": "b.png", "a": "a.png"}
    journal.add("d", [])
    other = Journal(tmp_path, rank=1)
    other.begin("one", SETTINGS, resume=True)
    other.add("e", [])
    assert list(journal.rows()) == ["a", "b", "d", "e"]
    assert [json.loads(line).get("case") for line in journal.path.read_text().splitlines()[1:3]] == ["b", "a"]
    with pytest.raises(InputError, match="predictions of another checkpoint"):
        Journal(tmp_path).begin("two", SETTINGS, resume=True)
    with pytest.raises(InputError, match=r"were made with model.window None, not \[8, 8\]"):
        Journal(tmp_path).begin("one", {"model.window": "[8, 8]"}, resume=True)
    assert Journal(tmp_path).begin("two", SETTINGS, resume=False) == {}
    assert journal.rows() == {}
    (tmp_path / "x").write_bytes(b"abc")
    assert fingerprint(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(None) == fingerprint(tmp_path / "none") == ""
