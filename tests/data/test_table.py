"""cases.csv: what is understood, what is found out, what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hrcam_lightning import InputError
from hrcam_lightning.data.table import CaseTable, read_table

if TYPE_CHECKING:
    from pathlib import Path


def _table(tmp_path: Path, text: str, files: int = 12) -> Path:
    for number in range(files):
        (tmp_path / f"{number}.png").touch()
    path = tmp_path / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _rows(labels: list[str], header: str = "image,label") -> str:
    return "\n".join([header, *(f"{n}.png,{label}" for n, label in enumerate(labels))]) + "\n"


def _labels(table: CaseTable) -> list[int | tuple[int, ...] | None]:
    return [case.label for case in table.cases]


def test_image_and_label_are_enough(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["normal", "tumour", "normal"])))
    assert (table.task, table.classes) == ("binary", ["tumour"])
    assert _labels(table) == [0, 1, 0]
    assert table.cases[1].images == (tmp_path / "1.png",)
    assert table.cases[1].name == table.cases[1].subject == "1"


def test_an_image_may_join_several_files(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "image,label\n0.png | 1.png,normal\n2.png|3.png,tumour\n"))
    assert table.cases[0].images == (tmp_path / "0.png", tmp_path / "1.png")
    assert [case.name for case in table.cases] == ["0", "2"]
    with pytest.raises(InputError, match="line 2: the image is empty"):
        read_table(_table(tmp_path, "image,label\n0.png|,normal\n"))
    with pytest.raises(InputError, match=r"line 2: .*99\.png does not exist"):
        read_table(_table(tmp_path, "image,label\n0.png|99.png,normal\n"))


def test_zero_and_one_are_a_binary_label(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["0", "1", "1"])))
    assert (table.task, table.classes) == ("binary", ["positive"])
    assert _labels(table) == [0, 1, 1]


def test_two_names_need_to_know_which_is_the_negative_one(tmp_path: Path) -> None:
    path = _table(tmp_path, _rows(["healthy", "sick"]))
    with pytest.raises(InputError, match="'healthy' and 'sick': say which one means 'no disease'"):
        read_table(path)
    table = read_table(path, negative="healthy")
    assert (table.classes, _labels(table)) == (["sick"], [0, 1])


def test_three_names_are_classes(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["b", "c", "a"])))
    assert (table.task, table.classes, _labels(table)) == ("multiclass", ["a", "b", "c"], [1, 2, 0])


def test_class_numbers_follow_the_given_names(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["2", "0", "a"])), "multiclass", ["a", "b", "c"])
    assert _labels(table) == [2, 0, 0]


def test_several_labels_in_a_row_are_findings(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["mass|nodule", "normal", "nodule"])))
    assert (table.task, table.classes) == ("multilabel", ["mass", "nodule"])
    assert _labels(table) == [(1, 1), (0, 0), (0, 1)]


def test_dataset_json_beside_the_table_decides(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"task": "multilabel", "classes": ["x", "y"]}))
    table = read_table(_table(tmp_path, _rows(["y", "normal"])))
    assert (table.task, table.classes, _labels(table)) == ("multilabel", ["x", "y"], [(0, 1), (0, 0)])


def test_masks_by_class(tmp_path: Path) -> None:
    text = "image,label,mask\n0.png,a|b,a=1.png|b=2.png\n3.png,b,4.png\n5.png,normal,\n"
    table = read_table(_table(tmp_path, text))
    assert table.cases[0].masks == {"a": tmp_path / "1.png", "b": tmp_path / "2.png"}
    assert table.cases[1].masks == {"b": tmp_path / "4.png"}
    assert table.cases[2].masks == {}


def test_a_byte_order_mark_and_quoted_commas_are_no_trouble(tmp_path: Path) -> None:
    path = _table(tmp_path, '\ufeffimage,label,case\n0.png,normal,"Smith, J"\n1.png,sick,ü\n')
    assert [case.name for case in read_table(path).cases] == ["Smith, J", "ü"]


def test_the_negative_label_is_known_in_any_case_and_names_lose_their_endings(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["Normal", "normal", "sick", "NORMAL"])))
    assert (table.task, _labels(table)) == ("binary", [0, 0, 1, 0])
    assert [case.name for case in table.cases] == ["0", "1", "2", "3"]
    (tmp_path / "0.nii.gz").touch()
    both = read_table(_table(tmp_path, "image\n0.png\n0.nii.gz\n"))
    assert [case.name for case in both.cases] == ["0.png", "0.nii.gz"]


@pytest.mark.parametrize("content", ["[1, 2]", '{"classes": 2}', '{"task": "triage"}', "{"])
def test_a_damaged_dataset_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_table(_table(tmp_path, _rows(["0", "1"])))


def test_a_class_called_like_the_negative_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' is both a class and the label of a case without any finding"):
        read_table(_table(tmp_path, _rows(["a", "b"])), "binary", ["a"], negative="a")


def test_a_table_without_labels_can_be_predicted(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, "image\n0.png\n1.png\n"))
    assert (table.task, table.classes, _labels(table)) == (None, None, [None, None])


def test_a_split_is_by_subject_by_label_and_repeatable(tmp_path: Path) -> None:
    rows = [f"{n % 12}.png,{'sick' if s % 2 else 'normal'},s{s},c{n}" for n, s in enumerate(list(range(100)) * 2)]
    text = "\n".join(["image,label,subject,case", *rows])
    table = read_table(_table(tmp_path, text))
    home: dict[str, set[str]] = {}
    for case in table.cases:
        home.setdefault(case.subject, set()).add(case.split)
    assert all(len(splits) == 1 for splits in home.values())
    for label in (0, 1):
        counts = [
            sum(case.split == split and case.label == label for case in table.cases)
            for split in ("train", "val", "test")
        ]
        assert counts == [70, 14, 16] or counts == [70, 16, 14]
    shuffled = read_table(_table(tmp_path, "\n".join(["image,label,subject,case", *reversed(rows)])))
    assert {(c.name, c.split) for c in shuffled.cases} == {(c.name, c.split) for c in table.cases}


def test_a_reversed_test_split_and_columns_of_synth_are_understood(tmp_path: Path) -> None:
    header = "image,label,mask,split,subject,case,site,cue"
    text = f"{header}\n0.png,0,,train,a,a,north,\n1.png,1,2.png,reversed,b,b,south,3.png\n"
    table = read_table(_table(tmp_path, text))
    assert [case.split for case in table.cases] == ["train", "reversed"]


def test_all_cases_go_to_test_if_asked(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, _rows(["0", "1", "1"])), shares=[0, 0, 1])
    assert {case.split for case in table.cases} == {"test"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("picture,label\n0.png,0\n", "has no column 'image'"),
        ("image,label\n", "holds no cases"),
        ("image,label\n0.png,\n", "line 2: the label is empty"),
        ("image,label\n99.png,0\n1.png,1\n", r"line 2: .*99\.png does not exist"),
        ("image,label,mask\n0.png,0,\n1.png,1,77.png\n", r"line 3: .*77\.png does not exist"),
        ("image,label\n0.png,0\n0.png,1\n", "'0.png' stands in it twice"),
        (
            "image,label,split\n0.png,0,train\n1.png,1,dev\n",
            "case 1: the split is 'dev'; one of train, val, test, reversed",
        ),
        (
            "image,label,split,subject\n0.png,0,train,s\n1.png,1,test,s\n",
            "case 1: the subject 's' is in train and in test",
        ),
        ("image,label,mask\n0.png,a|b,1.png\n1.png,a,\n", "several classes: say whose mask"),
        ("image,label,mask\n0.png,a|b,a=1.png|a=2.png\n", "two masks for class a"),
        ("image,label\n,0\n", "line 2: the image is empty"),
        ("image,label\n\n\n0.png,0|1|1\n", "line 4: the label '0|1|1' names a class twice".replace("|", r"\\|")),
        ("image,label\n0.png,120000\n1.png,1\n2.png,2\n", "would mean 120001 classes"),
        ("image,label\n0.png," + "x" * 200_000 + "\n", "cannot be read as a CSV file"),
    ],
)
def test_unfit_tables_are_refused_with_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_table(_table(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "cases.csv"))


def test_an_unknown_label_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3: the label 'tumor' is unknown; known are normal, tumour"):
        read_table(_table(tmp_path, _rows(["tumour", "tumor"])), "binary", ["tumour"])
    with pytest.raises(InputError, match="several labels in one case, but the task is binary"):
        read_table(_table(tmp_path, _rows(["a|normal", "normal"])), "binary", ["a"])


def test_a_missing_table_and_a_binary_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; give a table"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read as a CSV file in UTF-8"):
        read_table(tmp_path / "x.csv")
