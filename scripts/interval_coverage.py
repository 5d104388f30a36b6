#!/usr/bin/env python
"""How often the intervals of the go-live report hold what they promise, by simulation.

  scripts/interval_coverage.py                  20,000 paths, about a minute
  scripts/interval_coverage.py --paths 4000     quicker, less exact
  scripts/interval_coverage.py --json           one document

Exits 1 when a nominal 95 % interval covers less than 93.5 % or more than 97 % on independent normal days, or the
any-time band raises a false alarm on 5 % of paths or more within 63 daily looks.
"""

import argparse
import json
import math
import sys

import numpy as np

from v23.validation.looks import alarms_of_any_time_proportion, alarms_of_any_time_t, alarms_of_daily_t, normal_moves, skewed_moves
from v23.validation.cone import bootstrap_sharpe_ci
from v23.validation.sharpe import exact_sharpe_ci, hac_ratio, lo_se, mertens_se, sharpe_interval
from v23.validation.statistics import clopper_pearson, wilson, yuen_test

LOW, HIGH, ALARMS = 0.935, 0.970, 0.05
SHARPE = 1.54


def sharpes(moves: np.ndarray) -> np.ndarray:
    "Sharpe ratio per session of every path."
    return moves.mean(axis=1) / moves.std(axis=1, ddof=1)


def covered_by_error(sr: np.ndarray, truth: float, error) -> float:
    "Share of paths on which truth is within 1.96 standard errors."
    return float(np.mean([abs(x - truth) <= 1.959964 * error(x) for x in sr]))


def exact_coverage(sr: np.ndarray, truth: float, n: int) -> float:
    "Share of paths whose exact interval holds the truth: the interval inverts the noncentral t, so its tail is asked directly."
    from scipy.stats import nct

    root = math.sqrt(n)
    tail = nct.cdf(sr * root, n - 1, truth * root)
    return float(np.mean((tail >= 0.025) & (tail <= 0.975)))


def agrees(sr: np.ndarray, truth: float, n: int) -> bool:
    "The interval that is printed holds the truth exactly when its tail says so, on some paths."
    from scipy.stats import nct

    for x in sr[:25]:
        low, high = exact_sharpe_ci(float(x) * math.sqrt(252), n)
        tail = nct.cdf(x * math.sqrt(n), n - 1, truth * math.sqrt(n))
        if (low <= truth * math.sqrt(252) <= high) != (0.025 <= tail <= 0.975):
            return False
    return True


def hanging_together(rng: np.random.Generator, paths: int, days: int, rho: float) -> np.ndarray:
    "Standard normal moves with this first autocorrelation, (paths, days)."
    fresh = rng.standard_normal((paths, days + 50))
    moves = np.zeros_like(fresh)
    for t in range(1, days + 50):
        moves[:, t] = rho * moves[:, t - 1] + math.sqrt(1 - rho**2) * fresh[:, t]
    return moves[:, 50:]


def printed_coverage(moves: np.ndarray, truth: float) -> tuple[float, bool]:
    "Share of paths whose interval as the report prints it holds the truth, asked of the tail; and whether the printed ends agree with that on some paths."
    from scipy.stats import nct

    n = moves.shape[1]
    root, sr = math.sqrt(n), sharpes(moves)
    stretch = np.maximum(1.0, [hac_ratio(path) for path in moves])
    tail = nct.cdf(sr * root, n - 1, (sr + (truth - sr) / stretch) * root)
    held = (tail >= 0.025) & (tail <= 0.975)
    ends = [sharpe_interval(path)[:2] for path in moves[:25]]
    return float(np.mean(held)), all((low <= truth * math.sqrt(252) <= high) == h for (low, high), h in zip(ends, held, strict=False))


def measure(paths: int, seed: int) -> dict[str, dict[str, float | bool]]:
    "Every share, with what it has to be."
    rng = np.random.default_rng(seed)
    truth = SHARPE / math.sqrt(252)
    rows: dict[str, dict[str, float | bool]] = {}
    for n in (14, 20, 63, 252):
        sr = sharpes(normal_moves(rng, paths, n) + truth)
        rows[f"Sharpe, exact, {n} sessions"] = {"share": exact_coverage(sr, truth, n), "low": LOW, "high": HIGH, "printed_agrees": agrees(sr, truth, n)}
        rows[f"Sharpe, Lo, {n} sessions"] = {"share": covered_by_error(sr, truth, lambda x, n=n: lo_se(x, n)), "low": 0.0, "high": 1.0}
        rows[f"Sharpe, Mertens with normal moments, {n} sessions"] = {"share": covered_by_error(sr, truth, lambda x, n=n: mertens_se(x, n)), "low": 0.0, "high": 1.0}
    for n in (63, 252):
        for rho in (0.0, 0.2):
            moves = hanging_together(rng, min(paths, 3000), n, rho) + truth
            share, agreed = printed_coverage(moves, truth)
            label = f"{n} sessions" + (f", autocorrelation {rho:g}" if rho else "")
            asked = (0.0, 1.0) if rho else (LOW, HIGH)
            rows[f"Sharpe, as printed from session 60 on (exact, stretched by HAC), {label}"] = {"share": share, "low": asked[0], "high": asked[1], "printed_agrees": agreed}
            if rho:
                rows[f"Sharpe, exact, {label}"] = {"share": exact_coverage(sharpes(moves), truth, n), "low": 0.0, "high": 1.0}
            drawn = [bootstrap_sharpe_ci(path, times=400, seed=k) for k, path in enumerate(moves[:500])]
            rows[f"Sharpe, block bootstrap, {label}"] = {"share": float(np.mean([low <= truth * math.sqrt(252) <= high for low, high in drawn])), "low": 0.0, "high": 1.0}
    for n in (20, 120):
        wins = rng.binomial(n, 0.551, paths)
        held = {k: (wilson(k, n), clopper_pearson(k, n)) for k in range(n + 1)}
        for place, name, high in ((0, "Wilson", 1.0), (1, "Clopper-Pearson", 1.0)):
            share = float(np.mean([held[k][place].low <= 0.551 <= held[k][place].high for k in wins]))
            rows[f"win rate, {name}, {n} days"] = {"share": share, "low": LOW if place else 0.93, "high": high}
    costs = rng.normal(10, 20, (min(paths, 4000), 84))
    rows["slippage, one-sided 95 % upper of the mean, 84 fills"] = {"share": float(np.mean([yuen_test(c, 15).plain_upper >= 10 for c in costs])), "low": LOW, "high": HIGH}
    looked = normal_moves(rng, paths, 63)
    rows["any-time band, false alarms in 63 looks"] = {"share": alarms_of_any_time_t(looked), "low": 0.0, "high": ALARMS}
    rows["any-time win rate, false alarms in 63 looks"] = {"share": alarms_of_any_time_proportion(rng.random((paths, 63)) < 0.551, 0.551), "low": 0.0, "high": ALARMS}
    rows["daily t test, false alarms in 63 looks (what not to do)"] = {"share": alarms_of_daily_t(looked), "low": 0.0, "high": 1.0}
    rows["any-time band, skewed days, false alarms in 63 looks (known to be too many)"] = {"share": alarms_of_any_time_t(skewed_moves(rng, paths, 63)), "low": 0.0, "high": 1.0}
    return rows


def main(arguments: list[str] | None = None) -> int:
    "The command."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args(arguments)
    rows = measure(a.paths, a.seed)
    wrong = [name for name, r in rows.items() if not r["low"] <= r["share"] <= r["high"] or r.get("printed_agrees") is False]
    if a.json:
        print(json.dumps({"paths": a.paths, "seed": a.seed, "measured": rows, "outside": wrong}, indent=1))
    else:
        for name, r in rows.items():
            wanted = f"{r['low']:.1%} to {r['high']:.1%}" if r["high"] < 1 or r["low"] > 0 else "for comparison"
            print(f"{'OUTSIDE' if name in wrong else '       '}  {r['share']:7.2%}  {wanted:<18} {name}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
