"A synthetic market with everything a real one has: late listings, delistings, holes, idle names, days without volume."

from dataclasses import replace
from datetime import date

import numpy as np

from v23.market_data import FIELDS
from v23.synthetic_market import synthetic_panel


def broken_panel(seed=21, names=80, start=date(2024, 1, 2), end=date(2025, 12, 31)):
    "Two years of eighty names: some never listed to the end, some listed late, some with holes, some idle."
    whole = synthetic_panel(seed, names, start, end)
    rng = np.random.default_rng(4)
    bars = {f: getattr(whole, f).copy() for f in FIELDS}
    gone = np.zeros(whole.close.shape, dtype=bool)
    for c in range(0, 30):
        gone[rng.integers(80, 480) :, c] = True
    for c in range(30, 40):
        gone[: rng.integers(20, 200), c] = True
    gone |= rng.random(gone.shape) < 0.004
    for f in FIELDS:
        bars[f][gone] = np.nan
    bars["volume"][(rng.random(gone.shape) < 0.01) & ~gone] = 0.0
    for f in ("open", "high", "low", "close"):  # Names that stand still for weeks
        bars[f][100:160, 45:50] = np.where(np.isnan(bars[f][100:160, 45:50]), np.nan, bars["close"][99, 45:50])
    return replace(whole, **bars)
