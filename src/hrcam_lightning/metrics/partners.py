"""Which known lesion is which connected part of a mask: by nearest centres, one to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hrcam_lightning.metrics.estimate import Floats, Ints


def partners(centres: Floats, known: Floats, reach: Floats) -> Ints:
    """Pair the lesions of a case and class with those that are known, the nearest pair first.

    A lesion of two parts is the partner of the nearer one, and the other has none; of two lesions that touch, and so
    are one part, the nearer one is its partner.

    Args:
        centres: (m, D) centres of mass.
        known: (n, D) centres, in the same unit.
        reach: (n,) how far a partner may be; NaN for any distance.

    Returns:
        (m,) which known lesion each is; −1 where it is none.
    """
    found = np.full(len(centres), -1, np.int64)
    if not len(centres) or not len(known):
        return found
    distance = np.linalg.norm(centres[:, None] - known[None], axis=-1)
    distance[distance > reach[None]] = np.inf  # a comparison with NaN is false: no limit
    while np.isfinite(distance).any():
        part, lesion = np.unravel_index(int(distance.argmin()), distance.shape)
        found[part] = lesion
        distance[part], distance[:, lesion] = np.inf, np.inf
    return found
