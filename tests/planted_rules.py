"A rule written as a function of the whole panel, and the mistakes people make with it: what the detectors are tried on."

from datetime import date

import numpy as np

from v23.synthetic_market import synthetic_panel

MISTAKES = ("shift(-1)", "full-sample max for drawdown", "bfill of gaps", "full-sample liquidity filter", "centred average", "full-sample standardisation")
RECURSIVE = "ewm volatility"  # No look-ahead; needs more history than it seems


def universe():
    "517 sessions × 500 names, seed 0."
    return synthetic_panel(0, 500, date(2023, 1, 3), date(2025, 1, 24))


def rule(bug=None):
    "Five-day losers that are volatile, below their high and busy, with one mistake or none."

    def planted(panel):
        close, high, volume = (panel.frame(name) for name in ("close", "high", "volume"))
        if bug == "bfill of gaps":
            close, high, volume = (frame.bfill() for frame in (close, high, volume))
        returns = close.pct_change(fill_method=None)
        window = returns.rolling(20)
        spread = returns.ewm(span=40).std() if bug == RECURSIVE else window.std() if bug != "centred average" else returns.rolling(21, center=True).std()
        top = high.max() if bug == "full-sample max for drawdown" else high.rolling(20).max()
        dollars = close * volume
        floor = dollars.mean() if bug == "full-sample liquidity filter" else dollars.rolling(20).mean()
        busy = volume / volume.rolling(20).mean()
        score = -(close / close.shift(5) - 1) * busy
        if bug == "full-sample standardisation":
            score = (score - score.mean()) / score.std()
        if bug == "shift(-1)":
            score = score.shift(-1)
        fell = (close / top - 1) < -0.05
        limit = 2e8 if bug == "full-sample liquidity filter" else 1e6
        return score.where((spread * np.sqrt(252) > 0.25) & fell & (floor > limit))

    planted.__name__ = bug or "clean"
    return planted
