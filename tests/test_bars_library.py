"A download goes on where it was cut off, waits when it is told to, keeps under the limit; a quality report sees every kind of oddity."

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from v23.adapters.bars import read_bars, save_bars
from v23.bars_library import WAITS_S, import_bars, parts_of
from v23.bars_source import marked
from v23.data_quality import quality_report
from v23.errors import BrokerError
from v23.exchange_host import SimulatedExchange
from v23.market_calendar import NEW_YORK
from v23.settings import load_settings
from v23.synthetic_market import synthetic_panel

START, END = date(2024, 6, 3), date(2026, 11, 30)


@pytest.fixture
def alpaca():
    with SimulatedExchange(seed=7) as exchange:
        yield exchange


def fetch(alpaca, folder: Path, told: list, symbols=None, feed="iex"):
    keys = {"ALPACA_API_KEY": "example", "ALPACA_API_SECRET": "example", "ALPACA_DATA_URL": alpaca.url, "ALPACA_FEED": feed}
    names = ",".join(symbols or alpaca.panel.symbols[:60])
    return import_bars(f"alpaca:{names}", folder / "bars.parquet", load_settings("/nonexistent", environ=keys), alpaca.clock, START, END, told.append)


def test_asked_to_slow_down_it_waits_and_goes_on(alpaca, tmp_path):
    told, before = [], alpaca.clock.now()
    alpaca.exchange.faults.add("GET", "/v2/stocks/bars", "429", nth=2, times=2)
    fetch(alpaca, tmp_path, told)
    waited = [line for line in told if "asking again" in line]
    assert [line.rpartition(" in ")[2] for line in waited] == ["5 s", "20 s"] and all("429" in line for line in waited)
    assert (alpaca.clock.now() - before).total_seconds() >= sum(WAITS_S[:2])
    assert read_bars(tmp_path / "bars.parquet").symbols == alpaca.panel.symbols[:60]


def test_cut_off_it_keeps_what_it_has_and_fetches_only_the_rest(alpaca, tmp_path):
    told = []
    alpaca.exchange.faults.add("GET", "/v2/stocks/bars", "error", nth=4, times=50, status=503)
    with pytest.raises(BrokerError, match="503"):
        fetch(alpaca, tmp_path, told)
    assert not (tmp_path / "bars.parquet").exists() and sum(line.startswith("part") for line in told) == 3
    alpaca.exchange.faults.waiting.clear()
    told.clear()
    fetch(alpaca, tmp_path, told)
    assert sum(line.startswith("part") for line in told) == 3 and sorted(p.name for p in tmp_path.iterdir()) == ["bars.parquet"]


def test_a_refusal_is_not_asked_again(alpaca, tmp_path):
    told = []
    alpaca.exchange.faults.add("GET", "/v2/stocks/bars", "error", times=9, status=422)
    with pytest.raises(BrokerError, match="422"):
        fetch(alpaca, tmp_path, told)
    assert told == []


def test_a_part_is_one_request_and_the_pace_stays_under_the_limit(alpaca, tmp_path, monkeypatch):
    told, asked, handle = [], [], alpaca.exchange.handle

    def counted(method, path, *rest):
        asked.extend([alpaca.clock.now()] * (path == "/v2/stocks/bars"))
        return handle(method, path, *rest)

    monkeypatch.setattr(alpaca.exchange, "handle", counted)
    fetch(alpaca, tmp_path, told)
    assert len(asked) == sum(line.startswith("part") for line in told) == 6
    assert 60 * (len(asked) - 1) / (asked[-1] - asked[0]).total_seconds() <= 150


def test_parts_of_another_feed_are_others():
    names = [f"X{n}" for n in range(50)]
    iex, sip = (list(parts_of(names, START, END, feed, END)) for feed in ("iex", "sip"))
    assert len(iex) == 6 and not {p[0] for p in iex} & {p[0] for p in sip}
    assert [s for p in iex if p[2].year == 2024 for s in p[1]] == names and iex[0][2] == START and iex[2][3] == END


def test_prices_that_were_adjusted_on_another_day_are_fetched_again(alpaca, tmp_path):
    told = []
    alpaca.exchange.faults.add("GET", "/v2/stocks/bars", "error", nth=4, times=50, status=503)
    with pytest.raises(BrokerError, match="503"):
        fetch(alpaca, tmp_path, told)
    alpaca.exchange.faults.waiting.clear()
    alpaca.exchange.advance_by(24 * 3600)
    told.clear()
    fetch(alpaca, tmp_path, told)
    assert sum(line.startswith("part") for line in told) == 6


def test_a_download_that_passes_midnight_has_prices_of_one_day_only(alpaca, tmp_path):
    told = []
    alpaca.exchange.advance_by((datetime(2026, 12, 3, 23, 59, 58, tzinfo=NEW_YORK) - alpaca.clock.now()).total_seconds())
    fetch(alpaca, tmp_path, told)
    assert sum(line.startswith("part") for line in told) == 12 and sum("a day ended meanwhile" in line for line in told) == 1
    assert read_bars(tmp_path / "bars.parquet").symbols == alpaca.panel.symbols[:60]


def test_bars_of_a_simulated_exchange_say_so_in_the_file_too(alpaca, tmp_path):
    fetch(alpaca, tmp_path, [])
    panel = read_bars(tmp_path / "bars.parquet")
    assert panel.synthetic and f"simulated at {alpaca.url}" in panel.source
    real = replace(panel, synthetic=False)
    for url, synthetic in (("https://data.alpaca.markets", False), ("https://data.alpaca.markets/", False), ("http://localhost:8123", True), ("http://[::1]:8123", True), ("http://exchange:8123", True), ("https://data.alpaca.markets.example.com", True)):
        assert marked(real, load_settings("/nonexistent", environ={"ALPACA_DATA_URL": url})).synthetic is synthetic


def test_a_symbol_without_bars_is_named(alpaca, tmp_path):
    report = fetch(alpaca, tmp_path, [], [*alpaca.panel.symbols[:5], "ZZZZ"])
    assert any("no bars at all of 1 symbols asked for: ZZZZ" in line for line in report.sentences())


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    "Bars with one of each oddity."
    panel = synthetic_panel(3, 30, date(2022, 1, 3), date(2025, 12, 31))
    close, volume = panel.close.copy(), panel.volume.copy()
    close[200:, 0] /= 4
    close[300, 1] *= 1.8
    close[100:110, 2] = close[99, 2]
    close[50:53, 3] = np.nan
    close[400:, 4] = np.nan
    volume[70, 5] = 0
    flat = {n: np.where(np.isnan(close), np.nan, close) for n in ("open", "high", "low")}
    made = replace(panel, close=close, volume=np.where(np.isnan(close), np.nan, volume), synthetic=False, **flat)
    path = tmp_path_factory.mktemp("odd") / "odd.parquet"
    save_bars(made, path)
    return panel, path


def test_every_kind_of_oddity_is_counted_where_it_was_planted(odd):
    panel, path = odd
    report = quality_report(read_bars(path))
    s = report.symbols
    planted = {"splits": 0, "spikes": 1, "stale": 2, "missing": 3, "idle": 5}
    for kind, column in planted.items():
        assert list(s.index[s[kind] > 0]) == [panel.symbols[column]], kind
    assert list(s.index[s["ends"]]) == [panel.symbols[4]] and report.survivorship == "FEW DELISTINGS"
    text = "\n".join(report.sentences())
    for word in ("sessions missing inside", "spikes that were undone", "unadjusted splits", "stale close", "without volume", "survivorship: FEW DELISTINGS"):
        assert word in text


def v23(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "v23.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_command_checks_and_exits_1_for_a_suspected_split(odd):
    panel, path = odd
    done = v23("data", "check", "--bars", path.name, "--json", cwd=path.parent)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["survivorship"] == "FEW DELISTINGS" and told["odd"][0]["symbol"] == panel.symbols[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda t: pd.concat([t, t.iloc[[3]]]), "two bars for"),
        (lambda t: t.rename(columns={"close": "clse"}), "the column 'close' is missing"),
        (lambda t: t.assign(close=t["close"].where(t.index != 5, -1.0)), "close is not a positive number"),
        (lambda t: t.assign(date="soon"), "a date does not parse"),
    ],
    ids=["a duplicate", "an unknown column", "a negative price", "no date"],
)
def test_unusable_bars_are_refused_in_one_line(make, said, tmp_path):
    panel = synthetic_panel(3, 11, date(2025, 10, 1), date(2026, 1, 30))
    long = pd.concat({f: panel.frame(f).rename_axis(index="date", columns="symbol").stack() for f in ("open", "high", "low", "close", "volume")}, axis=1).reset_index()
    make(long).to_csv(tmp_path / "bars.csv", index=False)
    done = v23("data", "import", "bars.csv", "--out", "out.parquet", cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "out.parquet").exists()


def test_a_date_outside_the_bars_is_refused_in_one_line(odd):
    _, path = odd
    done = v23("data", "import", path.name, "--out", "cut.parquet", "--start", "2031-01-02", cwd=path.parent)
    assert done.returncode == 2 and "2031-01-02" in done.stderr and len(done.stderr.strip().splitlines()) == 1
