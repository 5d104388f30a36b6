"""The same rule in other tools, for the benchmarks: a seeded panel with holes and delistings, and what others make of it.

Every peer gets the frames it likes before the clock starts; timed are signals and simulation. `plain pandas` keeps the same
conventions and must end at the same equity to 1e-9; the event-driven tools size orders a little differently (fees come out
of the cash they buy with), so their end is printed and not asserted.

Peers that must not share an environment with v23 may be installed elsewhere: V23_PEERS=/path/to/site-packages is looked at
last, after everything v23 itself uses.
"""

import os
import sys
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

if os.environ.get("V23_PEERS"):
    sys.path.append(os.environ["V23_PEERS"])
COST = 0.001
RULE = {"positions": 30, "holding": 5, "ratio": 1.2, "vol": 0.30, "rsi": 35.0, "deep": -0.5, "shallow": -0.12, "busy": 1.3}


def make_panel(names: int, sessions: int = 2520, seed: int = 1, holes: bool = True) -> Any:
    "Random walks; with holes, half a bar in a thousand is missing and a fifth of the names is delisted."
    from v23.market_calendar import sessions_between
    from v23.market_data import Panel

    rng, shape = np.random.default_rng(seed), (sessions, names)
    days = sessions_between(date(2014, 1, 2), date(2026, 6, 30))[:sessions]
    close = rng.standard_normal(shape)
    close *= rng.uniform(0.01, 0.045, names)
    np.cumsum(close, axis=0, out=close)
    np.exp(close, out=close)
    close *= 20 * rng.uniform(0.5, 5, names)
    opened = close * np.exp(rng.standard_normal(shape) * 0.005)
    high = np.maximum(opened, close) * (1 + np.abs(rng.standard_normal(shape)) * 0.004)
    low = np.minimum(opened, close) * (1 - np.abs(rng.standard_normal(shape)) * 0.004)
    volume = rng.lognormal(13, 0.6, shape)
    if holes:
        gone = rng.random(shape) < 0.0005
        gone |= np.arange(sessions)[:, None] >= np.where(rng.random(names) < 0.2, rng.integers(sessions // 4, sessions, names), sessions)
        for m in (opened, high, low, close, volume):
            m[gone] = np.nan
    return Panel(tuple(days), tuple(f"S{n:05d}" for n in range(names)), opened, high, low, close, volume, source="benchmark", synthetic=True)


def frames_of(panel: Any) -> dict[str, pd.DataFrame]:
    "What pandas people keep."
    return {f: panel.frame(f) for f in ("open", "high", "close", "volume")}


def indicators(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    "Rolling frames of every indicator."
    close, high, volume = frames["close"], frames["high"], frames["volume"]
    returns = close / close.shift(1) - 1
    ups, downs = returns.clip(lower=0).rolling(14).sum(), (-returns.clip(upper=0)).rolling(14).sum()
    return {
        "vol20": returns.rolling(20).std() * 252**0.5, "vol60": returns.rolling(60).std() * 252**0.5, "rsi": 100 * ups / (ups + downs),
        "drawdown": close / high.rolling(20).max() - 1, "busy": volume / volume.rolling(20).mean(), "week": close / close.shift(5) - 1,
        "universe": ((close * volume).rolling(20).mean() > 1e6) & (close > 5),
    }  # fmt: skip


def picks_of(now: dict[str, pd.DataFrame], rule: dict[str, Any] = RULE) -> dict[int, np.ndarray]:
    "Columns held from each rebalance row on."
    base = now["universe"] & (now["drawdown"] >= rule["deep"]) & (now["drawdown"] <= rule["shallow"]) & now["week"].notna()
    strict = base & (now["vol20"] / now["vol60"] > rule["ratio"]) & (now["vol20"] > rule["vol"]) & (now["rsi"] < rule["rsi"]) & (now["busy"] > rule["busy"])
    loose = base & (now["rsi"] < rule["rsi"] + 10) & (now["vol20"] > rule["vol"] * 0.8)
    strict_values, loose_values, week = strict.to_numpy(), loose.to_numpy(), now["week"].to_numpy()
    found = {}
    for row in range(0, len(week), rule["holding"]):
        mask = strict_values[row] if strict_values[row].sum() >= rule["positions"] else loose_values[row]
        columns = np.flatnonzero(mask)
        best = columns[np.argsort(week[row, columns], kind="stable")][: rule["positions"]]
        found[row] = best if len(columns) >= 5 else best[:0]
    return found


def pandas_run(frames: dict[str, pd.DataFrame], now: dict[str, pd.DataFrame] | None = None, rule: dict[str, Any] = RULE) -> np.ndarray:
    "Net daily returns: a loop over days on Series of weights."
    picks = picks_of(indicators(frames) if now is None else now, rule)
    close, opened, here = frames["close"].ffill(), frames["open"], frames["close"].notna()
    opened = opened.where(here, close.shift(1))
    weights, net = pd.Series(dtype=float), np.zeros(len(close))
    closes, opens, there = close.to_numpy(), opened.to_numpy(), here.to_numpy()
    for row in range(1, len(closes)):
        columns = weights.index.to_numpy(dtype=int)
        if row - 1 in picks:
            night = weights * (opens[row, columns] / closes[row - 1, columns])
            growth = 1 + float((night - weights).sum())
            drifted = night / growth
            wanted = [c for c in picks[row - 1].tolist() if there[row, c] or c in weights.index]
            target = pd.Series(1 / max(len(wanted), 1), index=wanted, dtype=float)
            turnover = float(target.sub(drifted, fill_value=0.0).abs().sum())
            day = target * (closes[row, wanted] / opens[row, wanted])
            gain = 1 + float((day - target).sum())
            net[row] = growth * gain - 1 - turnover * COST
            weights = day / gain
        else:
            grown = weights * (closes[row, columns] / closes[row - 1, columns])
            gain = 1 + float((grown - weights).sum())
            net[row], weights = gain - 1, grown / gain
    return net


def careful_run(frames: dict[str, pd.DataFrame], now: dict[str, pd.DataFrame], rule: dict[str, Any] = RULE) -> np.ndarray:
    "The same from indicators that are there already, a holding period at a time: what a careful pandas user writes for a sweep."
    picks = picks_of(now, rule)
    if "filled" not in frames:  # Shared by all configurations
        frames["filled"] = frames["close"].ffill()
        frames["open_filled"] = frames["open"].where(frames["close"].notna(), frames["filled"].shift(1))
    closes, opens, there = frames["filled"].to_numpy(), frames["open_filled"].to_numpy(), ~np.isnan(frames["close"].to_numpy())
    net, columns, shares, equity, held = np.zeros(len(closes)), np.empty(0, int), np.empty(0), 1.0, np.zeros(closes.shape[1])
    rows = [r for r in picks if r + 1 < len(closes)]
    for n, row in enumerate(rows):
        fill, stop = row + 1, rows[n + 1] + 1 if n + 1 < len(rows) else len(closes)
        value = shares * opens[fill, columns]
        total = value.sum() if len(columns) else equity
        held[:] = 0.0
        held[columns] = value / total
        wanted = picks[row]
        wanted = wanted[there[fill, wanted] | (held[wanted] > 0)]
        before = held.copy()
        before[wanted] -= 1 / max(len(wanted), 1)
        cost = np.abs(before).sum() * COST
        path = (closes[fill:stop, wanted] / opens[fill, wanted]).mean(axis=1) if len(wanted) else np.ones(stop - fill)
        growth = total / equity * path
        moves = np.diff(growth, prepend=1.0) / np.concatenate([[1.0], growth[:-1]])
        net[fill:stop] = moves
        net[fill] -= cost
        equity *= growth[-1] * (1 - cost / growth[0])
        columns, shares = wanted, equity / path[-1] / max(len(wanted), 1) / opens[fill, wanted]
    return net


def _targets(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    "Target weights on the day of each fill, NaN on all other days."
    picks, close = picks_of(indicators(frames)), frames["close"]
    weights = np.full(close.shape, np.nan)
    for row, columns in picks.items():
        if row + 1 < len(close):
            weights[row + 1] = 0.0
            weights[row + 1, columns] = 1 / max(len(columns), 1)
    return pd.DataFrame(weights, close.index, close.columns)


def vectorbt_run(frames: dict[str, pd.DataFrame]) -> np.ndarray:
    "Portfolio.from_orders with shared cash."
    import vectorbt as vbt

    book = vbt.Portfolio.from_orders(frames["close"].ffill().bfill(), size=_targets(frames), size_type="targetpercent", price=frames["open"].fillna(frames["close"].ffill()).bfill(), fees=COST, group_by=True, cash_sharing=True, call_seq="auto", freq="D")
    return book.returns().to_numpy().ravel()


def bt_run(frames: dict[str, pd.DataFrame]) -> np.ndarray:
    "A bt strategy with target weights, filled at the close of the fill's day."
    import bt

    weights = _targets(frames).dropna(how="all")
    strategy = bt.Strategy("v21", [bt.algos.WeighTarget(weights), bt.algos.Rebalance()])
    book = bt.Backtest(strategy, frames["close"].ffill().bfill(), commissions=lambda q, p: abs(q) * p * COST, integer_positions=False, progress_bar=False)
    return bt.run(book).prices.pct_change().fillna(0).to_numpy().ravel()[1:]


def backtrader_run(frames: dict[str, pd.DataFrame]) -> np.ndarray:
    "A backtrader strategy with order_target_percent."
    import backtrader as bt_

    weights, close = _targets(frames).shift(-1), frames["close"].ffill().bfill()

    class Hold(bt_.Strategy):
        def next(self) -> None:
            row = weights.iloc[len(self) - 1]
            for n, w in enumerate(row.to_numpy()):
                if w == w and (w > 0 or self.getposition(self.datas[n]).size):
                    self.order_target_percent(self.datas[n], w)

    engine = bt_.Cerebro(stdstats=False)
    engine.addstrategy(Hold)
    engine.addanalyzer(bt_.analyzers.TimeReturn, _name="returns")
    for name in close:
        table = pd.DataFrame({"open": frames["open"][name].fillna(close[name]), "high": close[name], "low": close[name], "close": close[name], "volume": 0.0})
        engine.adddata(bt_.feeds.PandasData(dataname=table))
    engine.broker.setcommission(COST)
    return np.array(list(engine.run()[0].analyzers.returns.get_analysis().values()))


PEERS: dict[str, tuple[str, Callable[[dict[str, pd.DataFrame]], np.ndarray]]] = {
    "plain pandas": ("pandas", pandas_run), "vectorbt": ("vectorbt", vectorbt_run), "bt": ("bt", bt_run), "backtrader": ("backtrader", backtrader_run),
}  # fmt: skip


def installed(peer: str) -> bool:
    "Whether a peer can be run here."
    from importlib.util import find_spec

    return find_spec(PEERS[peer][0]) is not None


def quietly(work: Callable[[], Any]) -> Any:
    "Without the warnings of others."
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return work()
