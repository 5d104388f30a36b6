"Market data and settings that cannot be trusted: nothing is bought on them, and nothing unknown counts as nothing wrong."

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v23.adapters.alpaca import parse_quote
from v23.adapters.bars import bars_from_alpaca, load_bars, read_bars, save_bars
from v23.domain import OrderIntent, Purpose, Side
from v23.errors import DataError, SettingsError
from v23.exchange_host import SimulatedExchange
from v23.execution_engine import quality_of
from v23.execution.order_routing import plan_order
from v23.execution.rebalance import EquityPoint, unit_volatility
from v23.market_calendar import NEW_YORK
from v23.market_data import panel_from_rows
from v23.monitoring.metrics import portfolio_beta, slippage_stats
from v23.risk.pretrade_checks import PreTradeContext, evaluate
from v23.settings import load_settings
from v23.sizing.multipliers import combined_multipliers
from v23.sizing.targets import UNKNOWN_SECTOR, size_portfolio
from v23.trading_desk import open_desk
from v23.v21_signals import V21

ROOT = Path(__file__).parent.parent
SETTINGS = load_settings("/nonexistent", environ={})
NOW = datetime(2026, 1, 20, 12, 0, tzinfo=NEW_YORK)
BAD_SIDES = st.one_of(st.sampled_from([0, 0.0, -0.0, -1, math.nan, math.inf, -math.inf, "100", "", None, True, [], {}]), st.floats(max_value=0.0))
BAD_PAIRS = st.one_of(
    st.tuples(BAD_SIDES, st.floats(1, 1e6)),
    st.tuples(st.floats(1, 1e6), BAD_SIDES),
    st.floats(0.01, 1e6).map(lambda x: (x, x)),  # locked
    st.tuples(st.floats(0.01, 1e6), st.floats(0.0001, 0.9999)).map(lambda t: (t[0], t[0] * t[1])),  # crossed
)


def factors(vix=20.0, age=0, volatility=0.2):
    return {m.name: m.value for m in combined_multipliers(0.0, vix, age, volatility, SETTINGS.risk, SETTINGS.sizing).parts}


def raw(bid, ask, at=NOW):
    return {"bp": bid, "ap": ask, "bs": 1, "as": 1, "t": at.isoformat()}


def intent(side=Side.BUY, purpose=Purpose.ENTRY):
    return OrderIntent("an intent", "test", NOW.date(), "X", side, Decimal(5), purpose, 100.0)


def verdict(quote, purpose=Purpose.ENTRY):
    context = PreTradeContext(NOW, NOW - timedelta(hours=1), NOW + timedelta(hours=1), 100_000.0, quote, quantity_available=Decimal(5))
    return evaluate(intent(Side.BUY if purpose is Purpose.ENTRY else Side.SELL, purpose), context, SETTINGS.risk)


def test_a_good_quote_passes_where_a_bad_one_is_denied():
    quote = parse_quote("X", raw(99.99, 100.01), "iex")
    assert verdict(quote).allowed and not plan_order(intent(), quote, NOW, NOW + timedelta(minutes=20), SETTINGS.execution).refused


@given(BAD_PAIRS)
def test_F47_no_entry_passes_on_a_quote_that_is_crossed_locked_empty_or_no_number(pair):
    quote = parse_quote("X", raw(*pair), "iex")
    denied = verdict(quote)
    assert not quote.is_valid and not denied.allowed and "spread" in denied.reasons
    assert math.isnan(quote.midpoint) and math.isnan(quote.spread_bps)
    assert plan_order(intent(), quote, NOW, NOW + timedelta(minutes=20), SETTINGS.execution).refused
    assert verdict(quote, Purpose.EXIT).allowed  # what is held may always go


def test_F47_a_whole_rebalance_on_bad_quotes_sends_nothing(tmp_path):  # on good ones it sends, two tests below
    kinds = [(0, 100.0), (100.0, 0), (math.nan, 100.0), (100.0, math.inf), (-1.0, 100.0), ("99.99", "100.01"), (100.01, 99.99), (100.0, 100.0)]
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7) as desk:
        desk.market_open()
        desk.broker.quotes = lambda symbols: {s: parse_quote(s, raw(*kinds[n % len(kinds)], desk.clock.now()), "iex") for n, s in enumerate(sorted(symbols))}
        desk.rebalance()
        assert desk.ledger.last("signals").body["signals"] and all(p["refused"] for p in desk.ledger.parents())
        assert not [o for o in desk.ledger.orders() if o.attempts] and not desk.booked_positions()


@pytest.mark.parametrize("feed", ["tape", "delayed_sip", "SIP"])
def test_F48_a_feed_nobody_knows_is_refused_before_a_desk_opens(feed):
    with pytest.raises(SettingsError, match=r"ALPACA_FEED is .*iex, sip"):
        load_settings("/nonexistent", environ={"ALPACA_FEED": feed})


@pytest.mark.parametrize("feed", ["iex", "sip"])
def test_F48_every_arrival_quote_says_its_feed_and_costs_are_told_apart_by_it(feed, tmp_path):
    settings = load_settings("/nonexistent", environ={"ALPACA_FEED": feed})
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7, settings=settings) as desk:
        desk.market_open()
        desk.rebalance()
        arrivals = [p["arrival"] for p in desk.ledger.parents() if p["arrival"]]
        assert len(arrivals) >= 5 and {a["feed"] for a in arrivals} == {feed}
        assert set(slippage_stats(quality_of(desk.ledger))["by_feed"]) == {feed}


def test_F49_two_bars_of_a_day_are_refused_and_a_name_with_a_gap_is_not_bought():
    panel = load_bars(seed=7)
    with pytest.raises(DataError, match="two bars"):
        panel_from_rows(rows_twice(panel), "twice")
    as_of = panel.sessions[-1]
    wanted = V21(SETTINGS.strategy).signals(panel, as_of)
    gone, column = wanted[0].symbol, panel.symbols.index(wanted[0].symbol)
    holed = {f: np.array(getattr(panel, f)) for f in ("open", "high", "low", "close", "volume")}
    for values in holed.values():
        values[-10, column] = np.nan
    found = {s.symbol for s in V21(SETTINGS.strategy).signals(replace(panel, **holed), as_of)}
    assert gone not in found and found >= {s.symbol for s in wanted[1:5]}


def rows_twice(panel):
    import pandas as pd

    rows = pd.DataFrame({f: panel.frame(f).stack() for f in ("open", "high", "low", "close", "volume")}).rename_axis(["date", "symbol"]).reset_index()
    return pd.concat([rows, rows.iloc[[100]]], ignore_index=True)


def test_F49_too_little_is_known_of_a_volatility_and_the_smallest_size_is_taken():
    points = [EquityPoint(NOW.date() + timedelta(days=n), 100_000.0 * (1 + 0.01 * (-1) ** n), 1.0) for n in range(12)]
    assert unit_volatility(points[:6]) is None and factors(volatility=unit_volatility(points[:6]))["volatility"] == 0.5
    assert factors(volatility=unit_volatility(points))["volatility"] > 0.5


def test_F49_how_bars_are_adjusted_is_kept_with_them(tmp_path):
    with SimulatedExchange(seed=7) as exchange:
        from alpaca.data.historical import StockHistoricalDataClient

        client = StockHistoricalDataClient("k", "s", raw_data=True, url_override=exchange.url)
        names = list(exchange.panel.symbols[:3])
        for adjustment in ("all", "raw"):
            bars = bars_from_alpaca(client, names, exchange.clock.now() - timedelta(days=30), exchange.clock.now() - timedelta(days=1), "iex", adjustment=adjustment)
            save_bars(bars, tmp_path / f"{adjustment}.parquet")
            assert f"adjustment {adjustment}" in read_bars(tmp_path / f"{adjustment}.parquet").source


@pytest.mark.parametrize(("vix", "age"), [(None, None), (math.nan, 0), (12.0, None), (12.0, 2), (12.0, -1), (0.0, 0), (-5.0, 0), (math.inf, 0)])
def test_F52_a_vix_nobody_knows_or_that_is_old_is_a_nervous_one(vix, age):
    assert factors(vix, age)["regime"] == 0.60 and factors(12.0, 1)["regime"] == 1.10


def test_F52_without_market_and_sectors_the_desk_trades_small_and_holds_one_bucket_under_its_cap(tmp_path):
    panel = load_bars(seed=7)
    blind = replace(panel, sectors={}, market=panel.market.iloc[:0])
    with open_desk(state=tmp_path / "state", reports=tmp_path / "reports", seed=7, panel=blind) as desk:
        desk.market_open()
        desk.rebalance()
        sized = desk.sizer.get_sizing_recommendation()
        assert {m["name"]: m["value"] for m in sized["multipliers"]}["regime"] == 0.60
        value = sum(float(p.market_value) for p in desk.broker.positions())
        assert 0 < value <= 0.25 * desk.gate.equity * 1.01
        assert {row["sector"] for row in sized["names"]} == {UNKNOWN_SECTOR}


def test_F52_names_without_a_sector_share_one_cap():
    steady = combined_multipliers(0.0, 20.0, 0, 0.2, SETTINGS.risk, SETTINGS.sizing)
    names = list("ABCDEFGH")
    unknown, spread = (size_portfolio(names, 0.2, steady, sectors, SETTINGS.sizing) for sectors in ({}, {n: n for n in names}))
    assert unknown.gross == pytest.approx(0.25) and spread.gross > 0.5


def test_F52_a_beta_that_cannot_be_known_is_none_and_never_0():
    returns = [0.01 * (-1) ** n for n in range(60)]
    assert portfolio_beta(returns, [math.nan] * 60) is None and portfolio_beta(returns[:19], returns[:19]) is None and portfolio_beta(returns, [0.0] * 60) is None
    assert portfolio_beta(returns, returns) == pytest.approx(1.0)


RISKY = {
    "S301": "import pickle\n\npickle.loads(b'')\n",
    "S506": "import yaml\n\nyaml.load('x')\n",
    "S307": "eval('1')\n",
    "S102": "exec('1')\n",
    "S602": "import subprocess\n\nsubprocess.run('ls', shell=True)\n",
}


@pytest.mark.parametrize("rule", RISKY)
def test_F97_what_runs_data_as_code_is_refused_by_our_linter(rule, tmp_path):
    (tmp_path / "v23").mkdir()
    (tmp_path / "v23" / "planted.py").write_text(RISKY[rule])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "v23"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and rule in done.stdout, done.stdout + done.stderr


def test_F97_nothing_of_ours_loads_pickles_from_arrays_or_lets_a_rule_pass_unseen():
    texts = {p: p.read_text(encoding="utf-8") for p in (ROOT / "v23").rglob("*.py")}
    assert [p for p, text in texts.items() if "allow_pickle=True" in text or "read_pickle" in text] == []
    assert [p for p, text in texts.items() if "noqa: S30" in text or "noqa: S506" in text or "noqa: S102" in text] == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_F97_secrets_that_others_can_read_stop_the_start(mode, tmp_path):
    (tmp_path / ".env").write_text("ALPACA_API_KEY=canary-key-1\n")
    (tmp_path / ".env").chmod(mode)
    with pytest.raises(SettingsError, match=r"chmod 600") as refused:
        load_settings(tmp_path, environ={})
    assert "canary" not in str(refused.value)
    (tmp_path / ".env").chmod(0o600)
    assert load_settings(tmp_path, environ={}).secrets["ALPACA_API_KEY"].reveal() == "canary-key-1"


def test_F97_every_locked_package_has_its_hash():
    for name in ("requirements.lock", "requirements-dev.lock"):
        entries = [e for e in (ROOT / name).read_text().replace("\\\n", " ").splitlines() if "==" in e]
        assert entries and all("--hash=sha256:" in e for e in entries)
