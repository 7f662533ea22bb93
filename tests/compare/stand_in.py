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
