"""Reading a comparison, and laying out its jobs: nothing is trained here."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hrcam_lightning.cli import main
from hrcam_lightning.compare.datasets import data_hash
from hrcam_lightning.compare.plan import Record, check_records, lost_seconds, make_plan, read_record
from hrcam_lightning.compare.schema import read_comparison
from hrcam_lightning.errors import InputError
from tests.command_line import error_of
from tests.compare.tables import write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "reference": "ours",
    "seeds": [0, 1],
    "data": {"demo": {"cases": "set/cases.csv"}},
    "common": ["--trainer.max_epochs 1"],
    "experiments": {
        "cured": {"retrofit": "cam", "overrides": ["--equivariance 0"]},
        "ours": {"configs": ["a.yaml"], "explainers": ["gradcam", "center"]},
        "cam": {"configs": ["a.yaml", "b.yaml"], "overrides": ["--model.decoder 'CAM'"]},
    },
    "small": {"seeds": [5], "budget_minutes": 2},
}


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False), encoding="utf-8")
    return path


def _resolve(words: Sequence[str]) -> str:
    return " ".join(words)


def test_a_comparison_is_read_with_its_bases_first(tmp_path: Path) -> None:
    found = read_comparison(_write(tmp_path))
    assert [one.name for one in found.experiments] == ["ours", "cam", "cured"]
    assert found.experiments[1].overrides == ("--trainer.max_epochs", "1", "--model.decoder", "CAM")
    assert found.experiments[2].overrides == ("--equivariance", "0")
    assert (found.seeds, found.budget_minutes, found.sort_by) == ((0, 1), None, "pixel_ap")
    small = read_comparison(tmp_path / "compare.yaml", small=True)
    assert (small.name, small.seeds, small.budget_minutes) == ("tiny_small", (5,), 2)
    assert small.experiments == found.experiments


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"seed": [1]}, "the file has no key 'seed'"),
    "seeds": ({"seeds": [0, "1"]}, "seeds is"),
    "same seeds": ({"seeds": [0, 0]}, "holds one twice"),
    "budget": ({"budget_minutes": 0}, "budget_minutes is 0"),
    "reference": ({"reference": "mine"}, "reference is 'mine', which is none of the experiments"),
    "base": ({"experiments": {"ours": {"retrofit": "none"}}}, "experiments.ours.retrofit is 'none'"),
    "base of a base": (
        {"experiments": {"ours": {"configs": ["a"]}, "b": {"retrofit": "ours"}, "c": {"retrofit": "b"}}},
        "experiments.c.retrofit is 'b'",
    ),
    "both": ({"experiments": {"ours": {"retrofit": "cam", "configs": ["a"]}}}, "needs either 'configs'"),
    "own": ({"common": ["--seed_everything=3"]}, "which the comparison gives itself"),
    "own of phantoms": ({"common": ["--data.seed 3"]}, "gives --data.seed, which the comparison gives itself"),
    "metric": ({"sort_by": "auc"}, "know no metric 'auc'"),
    "columns": ({"columns": []}, "columns is"),
    "name": ({"experiments": {"../x": {"configs": ["a"]}}}, "is no name of letters"),
    "data": ({"data": {"demo": {}}}, "data.demo.cases is None"),
    "drawn": ({"data": {"demo": {"cases": "x/table.csv", "generate": "s.yaml"}}}, "has its table in cases.csv"),
    "fresh of a set of one's own": (
        {"data": {"d": {"cases": "x/cases.csv", "fresh": True}}},
        "name their specification",
    ),
    "fresh of another spec": (
        {"data": {"d": {"cases": "cases.csv", "generate": "s.yaml --set name=x", "fresh": True}}},
        "draws from s.yaml as it stands: give 'generate' a file without --set",
    ),
    "fresh of another seed": (
        {"data": {"d": {"cases": "cases.csv", "generate": "s.yaml --see=2", "fresh": True}}},
        "a file without --see=2",
    ),
    "fresh as a number": ({"data": {"d": {"cases": "cases.csv", "fresh": 1}}}, "data.d.fresh is 1, but is true or"),
    "fresh study": (
        {
            "data": {"d": {"cases": "cases.csv", "generate": "s.yaml", "fresh": True}},
            "experiments": {"ours": {"filtered_retrain": ["a"]}},
            "reference": "ours/original",
        },
        "data.d.fresh: a study filters the images of a set",
    ),
    "nothing": ({"experiments": {}}, "experiments must be a mapping"),
    "explainers": ({"explainers": "gradcam"}, "explainers is 'gradcam'"),
    "quote": ({"common": ["--model.decoder don't"]}, "has a quote that is not closed"),
    "quote of a set": ({"data": {"demo": {"cases": "cases.csv", "generate": "s'"}}}, 'data.demo.generate: "s\'" has'),
    "reference as a list": ({"reference": ["ours"]}, "reference is ['ours'], but is the name of an experiment"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    changes, message = WRONG[name]
    with pytest.raises(InputError) as caught:
        read_comparison(_write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "compare.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_experiments_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: x\nexperiments:\n  a: {configs: [b]}\n  a: {configs: [c]}\n")
    with pytest.raises(InputError, match="line 4: 'a' is there twice"):
        read_comparison(path)


def test_what_is_no_comparison_is_said_in_one_sentence(tmp_path: Path) -> None:
    path = _write(tmp_path)
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match=r"is not text in UTF-8 \(invalid continuation byte at byte 9\)"):
        read_comparison(path)
    path.write_text("name: x\n? [a, b]\n: c\n")
    with pytest.raises(InputError, match="line 2: a key is a list"):
        read_comparison(path)
    path.write_text(yaml.safe_dump({key: value for key, value in CONTENT.items() if key != "name"}))
    with pytest.raises(InputError, match="'name' is missing"):
        read_comparison(path, small=True)


def test_the_plan_holds_every_job_with_its_command(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path))
    plan = make_plan(comparison, Path("out"), {"demo": "h"}, "1", _resolve)
    assert [job.name for job in plan.jobs] == [
        f"demo/{name}/seed_{seed}" for seed in (0, 1) for name in ("ours", "cam", "cured")
    ]
    cam, cured = plan.jobs[4], plan.jobs[5]
    common = "--data.cases set/cases.csv --seed_everything 1 --trainer.default_root_dir out/demo"
    assert " ".join(cam.training()) == (
        f"fit -c a.yaml -c b.yaml --trainer.max_epochs 1 --model.decoder CAM {common}/cam/seed_1 "
        "--trainer.enable_progress_bar false"
    )
    assert cam.training(resume=True)[-2:] == ["--ckpt_path", "last"]
    assert " ".join(cured.training(resume=True)) == (
        "retrofit -c a.yaml -c b.yaml --trainer.max_epochs 1 --model.decoder CAM --equivariance 0 "
        f"{common}/cured/seed_1 --trainer.enable_progress_bar false --ckpt_path out/demo/cam/seed_1/best.ckpt"
    )
    assert plan.jobs[0].testing()[-1] == '["gradcam", "center", "random"]'
    assert plan.floors == {"random", "center"}


def test_fresh_phantoms_are_trained_on_and_the_set_is_tested_on(tmp_path: Path) -> None:
    table = {"cases": "set/cases.csv", "generate": "s.yaml --splits train=1,val=1,test=9"}
    comparison = read_comparison(_write(tmp_path, data={"drawn": table, "fresh": {**table, "fresh": True}}))
    plan = make_plan(comparison, Path("out"), {"drawn": "h", "fresh": "h"}, "1", _resolve)
    jobs = {job.name: job for job in plan.jobs}
    fresh = jobs["fresh/cam/seed_1"]
    phantoms = "--data PhantomDataModule --data.spec s.yaml --data.fresh true"
    assert " ".join(fresh.training()) == (
        f"fit -c a.yaml -c b.yaml {phantoms} --trainer.max_epochs 1 --model.decoder CAM --data.seed 2 "
        "--seed_everything 1 --trainer.default_root_dir out/fresh/cam/seed_1 --trainer.enable_progress_bar false"
    )
    assert f"retrofit -c a.yaml -c b.yaml {phantoms} " in " ".join(jobs["fresh/cured/seed_0"].training())
    assert fresh.testing()[-4:] == ["--data", "CaseDataModule", "--data.cases", "set/cases.csv"]
    drawn = jobs["drawn/cam/seed_1"]
    assert "set/cases.csv" in drawn.training()
    assert not {"--data", "--data.seed", "--data.spec"} & {*drawn.training(), *drawn.testing()}
    assert drawn.key != fresh.key


def test_the_key_changes_with_all_that_a_job_depends_on(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path))

    def keys(data: str = "h", version: str = "1", extra: str = "", **changes: Any) -> dict[str, str]:
        def resolve(words: Sequence[str]) -> str:  # as a file that was edited
            return " ".join(words) + (extra if "b.yaml" in words else "")

        plan = make_plan(replace(comparison, **changes), Path("out"), {"demo": data}, version, resolve)
        return {job.name: job.key for job in plan.jobs}

    first = keys()
    assert len(set(first.values())) == 6
    assert keys() == first
    assert not set(keys(data="other").values()) & set(first.values())
    assert not set(keys(version="2").values()) & set(first.values())
    edited = keys(extra="!")
    changed = {name.split("/")[1] for name in first if edited[name] != first[name]}
    assert changed == {"cam", "cured"}  # a retrofit depends on its base
    assert set(keys(seeds=(1, 2))) & set(first) == {name for name in first if name.endswith("1")}
    assert keys(seeds=(1, 2))["demo/cam/seed_1"] == first["demo/cam/seed_1"]
    explained = tuple(replace(one, explainers=()) for one in comparison.experiments)
    assert {name.split("/")[1] for name, key in keys(experiments=explained).items() if key != first[name]} == {"ours"}
    base = tuple(replace(one, explainers=("edge",)) if one.name == "cam" else one for one in comparison.experiments)
    assert {name.split("/")[1] for name, key in keys(experiments=base).items() if key != first[name]} == {
        "cam",
        "cured",
    }


def test_an_unknown_explainer_is_said_with_its_experiment(tmp_path: Path) -> None:
    experiments = {"ours": {"configs": ["a"], "explainers": ["gradcamm"]}}
    comparison = read_comparison(_write(tmp_path, experiments=experiments))
    with pytest.raises(InputError, match=r"experiments.ours: explainers: .*gradcam"):
        make_plan(comparison, Path("out"), {"demo": "h"}, "1", _resolve)


def test_a_name_that_two_rows_would_have_is_refused(tmp_path: Path) -> None:
    ours = {"configs": ["a"]}
    edge = [{"method": "gradcam", "name": "edge"}]
    for experiments, message in (
        ({"ours": ours, "center": ours}, "experiments.center is called like a floor"),
        ({"ours": ours, "edge": {**ours, "explainers": ["edge"]}}, "experiments.edge is called like a floor"),
        (
            {"ours": {**ours, "explainers": ["edge"]}, "b": {**ours, "explainers": edge}},
            "explainers: edge is a floor in one experiment and none in another",
        ),
    ):
        comparison = read_comparison(_write(tmp_path, experiments=experiments))
        with pytest.raises(InputError, match=message):
            make_plan(comparison, Path("out"), {"demo": "h"}, "1", _resolve)


def test_how_far_a_job_is(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path))
    job = make_plan(comparison, tmp_path / "out", {"demo": "h"}, "1", _resolve).jobs[0]
    mine = Record(job.key, "h")
    assert job.state(None, None) == "new"
    assert job.state(replace(mine, key="other", state="finished"), None) == "changed"
    assert job.state(mine, None) == "new"  # killed before its first checkpoint
    job.folder.mkdir(parents=True)
    last = write_checkpoint(job.folder / "last.ckpt")
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert job.state(mine, None) == "new"  # a checkpoint that was cut short
    last.write_bytes(whole)
    assert job.state(mine, None) == "continue"
    assert job.state(replace(mine, state="finished"), None) == "continue"  # its test is not there
    (job.folder / "test").mkdir()
    (job.folder / "test/metrics.json").write_text("{}")
    assert job.state(replace(mine, state="finished"), None) == "finished"
    spent = replace(mine, state="over budget", train_seconds=60.0)
    assert job.state(spent, 1) == "over budget"
    assert job.state(spent, 2) == "continue"
    assert job.state(spent, None) == "continue"


def test_a_killed_training_counts_until_its_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    found = lost_seconds(Record("k", "d", begun=time.time() - 30, train_seconds=5), tmp_path)
    assert found.train_seconds == pytest.approx(35, abs=2)
    assert found.begun == 0
    assert lost_seconds(found, tmp_path) == found


def test_records_are_refused_where_the_data_changed_or_the_folder_is_not_ours(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path))
    plan = make_plan(comparison, tmp_path / "out", {"demo": "h"}, "1", _resolve)
    job = plan.jobs[0]
    Record(job.key, "h", parameters=3).write(job.folder)
    assert check_records(plan)[job.name] == read_record(job.folder) == Record(job.key, "h", parameters=3)
    Record(job.key, "of yesterday").write(job.folder)
    with pytest.raises(InputError, match=r"set/cases.csv has changed since .*seed_0 was trained on it"):
        check_records(plan)
    (job.folder / "job.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        check_records(plan)
    (job.folder / "job.json").rename(job.folder / "thesis.docx")
    with pytest.raises(InputError, match="holds something that no comparison made"):
        check_records(plan)


def test_the_hash_of_a_set_is_that_of_its_table_and_files(tiny_set: Path, tmp_path: Path) -> None:
    drawn = data_hash(tiny_set / "cases.csv")
    own = tmp_path / "own"
    own.mkdir()
    for name in ("cases.csv", "images", "masks"):
        (own / name).symlink_to(tiny_set / name)
    first = data_hash(own / "cases.csv")
    assert first != drawn  # by its files, for it carries no hash
    assert data_hash(own / "cases.csv") == first
    (own / "masks").unlink()
    (own / "masks").mkdir()
    for path in (tiny_set / "masks").iterdir():
        (own / "masks" / path.name).write_bytes(path.read_bytes())
    assert data_hash(own / "cases.csv") == first
    changed = next((own / "masks").iterdir())
    changed.write_bytes(changed.read_bytes() + b"!")
    assert data_hash(own / "cases.csv") != first
    changed.unlink()
    with pytest.raises(InputError, match="does not exist"):
        data_hash(own / "cases.csv")


def test_a_set_of_ones_own_is_known_by_its_files_whatever_its_labels_mean(tmp_path: Path) -> None:
    """Labels that only the words of an experiment explain, and a ``dataset.json`` that carries no hash."""
    (tmp_path / "series").mkdir()
    names = ("a.png", "b.png", "series/1.dcm", "seg.png", "x=y.png", "old.png", "cue.png")
    for name in names:
        (tmp_path / name).write_text(name)
    cases = tmp_path / "cases.csv"
    cases.write_text(
        "image,label,mask,cue\n"
        "a.png|b.png#0,malignant,Malignant node= seg.png=1+4|x=y.png,cue.png\n"
        "series,benign,old.png=2,\n"
    )
    hashes = [data_hash(cases)]
    (tmp_path / "dataset.json").write_text('{"task": "binary", "classes": ["malignant"]}')
    hashes.append(data_hash(cases))
    for name in names:
        (tmp_path / name).write_text("changed")
        hashes.append(data_hash(cases))
    assert len(set(hashes)) == len(hashes)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(InputError, match="must be an object"):
        data_hash(cases)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "seg.png").unlink()
    with pytest.raises(InputError, match=r"line 2: .*seg.png does not exist"):
        data_hash(cases)


def test_every_comparison_that_is_delivered_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    for path in sorted((ROOT / "configs/compare").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ")
        assert f"hrcam compare -c configs/compare/{path.name}" in first
        full, small = read_comparison(path), read_comparison(path, small=True)
        assert full.name == path.stem
        assert len(small.seeds) == 2
        for data in (*full.data, *small.data):
            assert Path(data.generate[0]).is_file()
        configs = {config for one in (*full.experiments, *small.experiments) for config in one.configs}
        assert [config for config in configs if not Path(config).is_file()] == []
    main(["compare", "-c", "configs/compare/size.yaml", "--dry_run"])
    shown = capsys.readouterr().out
    assert "size: 36 jobs" in shown
    assert "36 jobs to do; no estimate, for none is finished." in shown
    assert not Path("runs").exists()


def test_bad_input_ends_with_code_2_before_anything_starts(
    tmp_path: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("model: {backbone: {class_path: ConvPyramid, init_args: {widht: 3}}}\n")
    data = {"demo": {"cases": str(tiny_set / "cases.csv")}}
    experiments = {"ours": {"configs": ["a.yaml"]}}
    given = ("compare", "-c", str(_write(tmp_path, data=data, experiments=experiments, common=[])))
    said = error_of(capsys, monkeypatch, *given)
    assert "experiments.ours: " in said
    assert "widht" in said
    Path("a.yaml").write_text("data: {class_path: PhantomDataModule, init_args: {spec: s.yaml}}\n")
    assert error_of(capsys, monkeypatch, *given).endswith("on a set's cases; give the set 'fresh: true'")
    _write(tmp_path, experiments=experiments)
    assert "set/cases.csv is not there" in error_of(capsys, monkeypatch, *given)
    assert "see hrcam compare --help" in error_of(capsys, monkeypatch, "compare")
    assert "none.yaml: cannot be read" in error_of(capsys, monkeypatch, "compare", "-c", "none.yaml")
    assert not Path("runs").exists()
