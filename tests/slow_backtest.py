"""The conventions of the backtest once more, written for reading: rolling pandas for the rule, a loop over days and names for the money.

Nothing here is shared with the package but the panel it is given. The tests compare the two.
"""

import math

import numpy as np
import pandas as pd


def slow_volatility(returns: pd.Series, length: int) -> pd.Series:
    "Annualised standard deviation of every window of one name's returns, each from scratch."
    if len(returns) < length:
        return returns * np.nan
    windows = np.lib.stride_tricks.sliding_window_view(returns.to_numpy(), length)
    return pd.Series(windows.std(axis=1, ddof=1) * 252**0.5, index=returns.index[length - 1 :]).reindex(returns.index)


def slow_indicators(panel) -> dict[str, pd.DataFrame]:
    "Every indicator as a frame of sessions × symbols; NaN wherever a bar of its window is missing."
    close, high, volume = panel.frame("close"), panel.frame("high"), panel.frame("volume")
    returns = close / close.shift(1) - 1
    ups, downs = returns.clip(lower=0).rolling(14).sum(), (-returns.clip(upper=0)).rolling(14).sum()
    ups, downs = (x.mask(x < 1e-12, 0.0) for x in (ups, downs))
    rsi = 100 - 100 / (1 + ups / downs)
    rsi = rsi.mask((downs == 0) & (ups > 0), 100.0).mask((downs == 0) & (ups == 0), 50.0)
    return {
        "vol20": returns.apply(slow_volatility, length=20), "vol60": returns.apply(slow_volatility, length=60),
        "rsi": rsi, "legacy_rsi": rsi.mask(downs == 0, 0.0), "drawdown": close / high.rolling(20).max() - 1,
        "busy": volume / volume.rolling(20).mean(), "week": close / close.shift(5) - 1, "close": close,
        "dollars": (close * volume).rolling(20).mean(), "mean_dollars": (close * volume).mean(),
    }  # fmt: skip


def slow_picks(panel, now, s, universe="pit", phase=0):
    "(row, names best first, strict, how many qualified) at every rebalance row."
    if universe == "pit":
        allowed, rsi = (now["dollars"] > s.minimum_dollar_volume) & (now["close"] > s.minimum_price), now["rsi"]
    else:
        allowed = pd.DataFrame(np.tile((now["mean_dollars"] > s.minimum_dollar_volume).to_numpy(), (len(now["close"]), 1)), now["close"].index, now["close"].columns)
        rsi = now["legacy_rsi"]
    band = allowed & (now["drawdown"] >= s.drawdown_deep) & (now["drawdown"] <= s.drawdown_shallow) & now["week"].notna()
    strict = band & (now["vol20"] / now["vol60"] > s.volatility_ratio) & (now["vol20"] > s.volatility_floor) & (rsi < s.rsi_ceiling) & (now["busy"] > s.volume_ratio)
    relaxed = band & (rsi < s.rsi_ceiling + s.relaxed_rsi) & (now["vol20"] > s.volatility_floor * s.relaxed_volatility)
    found = []
    for row in range(phase, len(panel.sessions), s.holding_sessions):
        enough = int(strict.iloc[row].sum()) >= s.positions
        names = [n for n, yes in (strict if enough else relaxed).iloc[row].items() if yes]
        names.sort(key=lambda n: (now["week"].at[now["week"].index[row], n], n))
        found.append((row, names[: s.positions] if len(names) >= s.minimum_candidates else [], enough, len(names)))
    return found


class SlowBook:
    "A book in dollars, one name at a time."

    def __init__(self, panel, terms, accounting):
        self.panel, self.terms, self.accounting = panel, terms, accounting
        self.dollars, self.price, self.since = {}, {}, {}  # Per held name: worth, last price, (row, price) of its entry
        self.cash, self.closed = terms.capital, []
        self.rate = (1 + terms.cash_rate) ** (1 / 252) - 1
        self.rows = {f: getattr(panel, f).tolist() for f in ("open", "close", "volume")}
        self.column = {s: c for c, s in enumerate(panel.symbols)}
        self.gone = {}
        for s, c in self.column.items():
            there = [r for r, x in enumerate(panel.close[:, c].tolist()) if x == x]
            if there and there[-1] < len(panel.sessions) - 5:
                self.gone[s] = there[-1] + 1

    def equity(self):
        return sum(self.dollars.values()) + self.cash

    def at(self, field, row, name):
        return self.rows[field][row][self.column[name]]

    def here(self, row, name):
        return not math.isnan(self.at("close", row, name))

    def move(self, row, field, night):
        "Earn up to the open or close of a row; the growth of the whole book."
        start, weights = self.equity(), {n: d / self.equity() for n, d in self.dollars.items()}
        idle = self.cash / start
        for name in self.dollars:
            now = self.at(field, row, name) if self.here(row, name) else self.price[name]
            if self.terms.delisting_return and self.gone.get(name) == row and not self.here(row, name) and name not in self.lost:
                now *= max(1 + self.terms.delisting_return, 1e-9)
                self.lost.add(name)
            self.dollars[name] *= now / self.price[name]
            self.price[name] = now
        if night:
            self.cash *= 1 + self.rate
        growth = self.equity() / start
        if self.accounting == "constant":
            self.dollars, self.cash = {n: w * start * growth for n, w in weights.items()}, idle * start * growth
        return growth

    lost: set = set()

    def trade(self, row, wanted, field):
        "Towards weights by name; (turnover, cost, what was not filled) as fractions of equity."
        start, t = self.equity(), self.terms
        possible = {n: w for n, w in wanted.items() if self.here(row, n) or n in self.dollars}
        if possible and len(possible) < len(wanted):
            grow = sum(wanted.values()) / sum(possible.values())
            possible = {n: w * grow for n, w in possible.items()}
        price = {n: self.at(field, row, n) if n not in self.dollars else self.price[n] for n in {*possible, *self.dollars}}
        wish = {n: possible.get(n, 0.0) * start - self.dollars.get(n, 0.0) for n in price}
        done = dict(wish)
        if t.capacity is not None:
            for n in done:
                volume = self.at("volume", row, n)
                most = 0.0 if math.isnan(volume) else volume * price[n] * t.capacity
                done[n] = max(-most, min(most, done[n]))
            bought, have = sum(x for x in done.values() if x > 0), self.cash - sum(x for x in done.values() if x < 0)
            if bought > have:
                done = {n: x * max(have, 0.0) / bought if x > 0 else x for n, x in done.items()}
        turnover = sum(abs(x) for x in done.values()) / start
        cost = turnover * t.cost_bps / 1e4 + sum(abs(x) / price[n] for n, x in done.items()) / start * t.cost_per_share
        for n, x in done.items():
            after = possible.get(n, 0.0) * start if x == wish[n] else self.dollars.get(n, 0.0) + x
            if after > 0:
                self.since.setdefault(n, (row, price[n]))
                self.dollars[n], self.price[n] = after, price[n]
            elif n in self.dollars:
                self.closed.append((n, *self.since.pop(n), row, self.price[n]))
                del self.dollars[n], self.price[n]
        self.cash -= sum(done.values())
        return turnover, cost, sum(abs(wish[n] - done[n]) for n in wish) / start

    def pay(self, gross, cost):
        "Take a cost off the whole book in proportion; the net return of the day."
        net = gross - cost
        share = (1 + net) / (1 + gross)
        self.dollars, self.cash = {n: d * share for n, d in self.dollars.items()}, self.cash * share
        return net


def slow_run(panel, targets, fill, accounting, terms, first=0):
    "targets: {row: {name: weight}}; daily (gross, cost, net, turnover, unfilled, equity, cash) and the spells, closed ones first."
    book, days = SlowBook(panel, terms, accounting), []
    book.lost = set()
    due = {row + (fill != "close"): wanted for row, wanted in targets.items() if row >= first}
    for row in range(first, len(panel.sessions)):
        turnover = cost = unfilled = 0.0
        night = row > first
        if fill == "next_open" and row in due:
            gross = book.move(row, "open", night)
            turnover, cost, unfilled = book.trade(row, due[row], "open")
            gross = gross * book.move(row, "close", False) - 1
        else:
            gross = book.move(row, "close", night) - 1
            if row in due:
                turnover, cost, unfilled = book.trade(row, due[row], "close")
        net = book.pay(gross, cost)
        days.append((gross, cost, net, turnover, unfilled, book.equity(), book.cash))
    still = [(n, *book.since[n], len(panel.sessions) - 1, book.price[n]) for n in sorted(book.dollars)]
    return np.array(days), sorted(book.closed, key=lambda x: (x[3], x[1], x[0])) + still


def equal_targets(picks):
    "Picks as equal weights by row."
    return {row: {n: 1 / len(names) for n in names} for row, names, *_ in picks}
