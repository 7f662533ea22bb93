"""Stands in for ``hrcam`` where only what a comparison makes of it is tested: leaves the same files, in no time."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main(words: list[str]) -> None:
    command = words[0]
    given = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("-")}
    folder = Path(given["--trainer.default_root_dir"])
    if command == "test":
        _test(folder)
        return
    if command == "filtered-retrain":
        _study(folder, int(given["--seed_everything"]), given)
        return
    trained = json.loads((folder / "fake.json").read_text()) if given.get("--ckpt_path") == "last" else []
    for epoch in range(len(trained), 3):
        trained.append(f"{given['--seed_everything']} {epoch}")
        (folder / "fake.json").write_text(json.dumps(trained))
        shutil.copy("checkpoint", folder / "last.ckpt")
        shutil.copy("checkpoint", folder / "best.ckpt")
        if Path("die").exists() and epoch == 1:
            Path("die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    if "--sleep" in given:
        time.sleep(float(given["--sleep"]))
    if "--fail" in given:
        sys.stderr.write(f"hrcam: error: {given['--fail']}\n")
        sys.exit(2)


def _study(folder: Path, seed: int, given: dict[str, str]) -> None:
    """Three trainings, each done once, of two kinds."""
    results = folder / "filtered_retrain"
    (results / "logits").mkdir(parents=True, exist_ok=True)
    for number in range(3):
        if not (results / f"logits/{number}.npy").exists():
            print(f"training {number}")  # noqa: T201
            (results / f"logits/{number}.npy").touch()
        if Path("die").exists() and number == 1:
            Path("die").unlink()
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    if "--fail" in given and seed == 1:
        sys.stderr.write(f"hrcam: error: {given['--fail']}\n")
        sys.exit(2)
    with (results / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "subject", "label", f"original/seed_{seed}", f"inside/seed_{seed}"])
        for number in range(8):
            label = number % 2
            # Originals are told apart without a fault, those inside by half: the second four are the other way round.
            writer.writerow(
                [f"c{number}", f"p{number // 2}", label, label - 0.5, (label - 0.5) * (1 - 2 * (number > 3))]
            )
    (results / "metrics.json").write_text(
        json.dumps({"auroc": {"original": {"value": 1}, "inside": {"value": 0.5}}}), encoding="utf-8"
    )


def _test(folder: Path) -> None:
    trained = json.loads((folder / "fake.json").read_text())
    assert len(trained) == 3
    seed = int(folder.name.removeprefix("seed_"))
    value = 0.5 + 0.1 * seed + 0.2 * (folder.parent.name == "ours")
    (folder / "test").mkdir(exist_ok=True)
    with (folder / "test/cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "label", "probability", "pixel_ap", "pointing", "random/pixel_ap", "random/pointing"])
        for number in range(8):
            label = number % 2
            scores = [value + 0.01 * number, label, 0.01 * number, 0] if label else [""] * 4
            writer.writerow([f"c{number}", label, number / 10, *scores])
    (folder / "test/metrics.json").write_text(
        json.dumps({"test/auroc": {"value": 0.5}, "test/aupro": {"value": value}})
    )


main(sys.argv[1:])
