"""Scans that the network cannot take are named, and the others are handed on."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from hrcam_lightning import InputError
from hrcam_lightning.data.contract import Layout
from hrcam_lightning.data.tolerant import TolerantDataset, collate_readable

GREY = Layout(None, None, channels=1, dims=2)


class _Scans(Dataset[dict[str, Any]]):
    """A grey picture, one in colour, a volume, and one that is damaged."""

    shapes = ((1, 4, 4), (3, 4, 4), (1, 4, 4, 4))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 3:
            raise InputError("damaged.png: is damaged")
        return {"image": torch.ones(self.shapes[index]), "case": "grey", "affine": None, "frame": None}


def test_scans_of_another_kind_are_named_and_the_others_handed_on() -> None:
    scans = TolerantDataset(_Scans(), ["grey", "colour", "volume", "damaged"], GREY, {"headless": "no header"})
    batch = collate_readable([scans[index] for index in range(len(scans))])
    assert batch["case"] == ["grey"]
    assert batch["image"].shape == (1, 1, 4, 4)
    assert batch["failed"] == [
        ("headless", "no header"),
        ("colour", "colour: has 3 channels and 2 axes, but the network takes 1 channels and 2 axes"),
        ("volume", "volume: has 1 channels and 3 axes, but the network takes 1 channels and 2 axes"),
        ("damaged", "damaged.png: is damaged"),
    ]
    assert collate_readable([scans[0]]) == {"case": [], "failed": [("headless", "no header")]}
