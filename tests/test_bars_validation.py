"What bars are refused, what is flagged, and that every refusal is one line that says where."

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from v23.adapters.bars import bars_from_alpaca, load_bars, save_bars
from v23.errors import DataError, InputError
from v23.market_data import FIELDS, market_frame, panel_from_frames, panel_from_rows
from v23.synthetic_market import synthetic_panel

DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")


def rows(symbols=("AAA", "BBB"), days=DAYS) -> pd.DataFrame:
    return pd.DataFrame([(s, d, 10.0, 11.0, 9.0, 10.5, 100.0) for s in symbols for d in days], columns=["symbol", "date", *FIELDS])


def changed(row: int, **values) -> pd.DataFrame:
    out = rows()
    for name, value in values.items():
        out[name] = out[name].astype(object)
        out.loc[row, name] = value
    return out


def kinds(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(f.kind, f.symbol) for f in panel_from_rows(table, "x").findings]


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0, "n/a", None])
def test_a_price_that_is_not_positive_is_refused(name, value):
    with pytest.raises(DataError, match=f"bars.csv: {name} is not a positive number for BBB on 2026-01-06"):
        panel_from_rows(changed(4, **{name: value}), "bars.csv")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, "many"])
def test_a_volume_that_is_no_number_of_shares_is_refused(value):
    with pytest.raises(DataError, match="volume is not a number of shares for BBB on 2026-01-06"):
        panel_from_rows(changed(4, volume=value), "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"high": 8.0}, "high is below low for BBB on 2026-01-06"),
        ({"high": 10.2}, "outside high and low for BBB on 2026-01-06"),
        ({"low": 10.2}, "outside high and low for BBB on 2026-01-06"),
        ({"open": 20.0}, "outside high and low for BBB on 2026-01-06"),
        ({"close": 1.0}, "outside high and low for BBB on 2026-01-06"),
        ({"date": "2026-01-05"}, "two bars for BBB on 2026-01-05"),
        ({"date": None}, "1 rows have no date"),
        ({"date": "soon"}, "a date does not parse"),
        ({"date": "2026-01-06 15:30"}, "a date does not parse"),
        ({"symbol": None}, "1 rows have no symbol"),
        ({"symbol": " "}, "1 rows have no symbol"),
    ],
)
def test_an_incoherent_row_is_refused(values, message):
    with pytest.raises(DataError, match=message) as caught:
        panel_from_rows(changed(4, **values), "x")
    assert "\n" not in str(caught.value)


def test_single_precision_does_not_make_a_bar_incoherent():
    table = rows().assign(high=10.5, close=10.5 * (1 + 5e-7), low=9.0)
    assert panel_from_rows(table, "x").findings == ()


def test_stamps_are_new_york_sessions_or_refused():
    naive = panel_from_rows(rows(), "x")
    midnight = pd.to_datetime(rows()["date"]).dt.tz_localize("America/New_York")
    for stamps in (midnight, midnight.dt.tz_convert("UTC")):
        assert panel_from_rows(rows().assign(date=stamps), "x").sessions == naive.sessions
    for stamps in (pd.to_datetime(rows()["date"]).dt.tz_localize("UTC"), midnight + pd.Timedelta(hours=15.5)):
        with pytest.raises(DataError, match="not midnight in New York"):
            panel_from_rows(rows().assign(date=stamps), "x")
    with pytest.raises(DataError, match="has a time of day and no time zone"):
        panel_from_rows(rows().assign(date=rows()["date"] + " 15:30"), "x")
    with pytest.raises(DataError, match="20260105 is a number"):
        panel_from_rows(rows().assign(date=20260105), "x")


@pytest.mark.parametrize("name", ["symbol", "date", *FIELDS])
def test_a_missing_or_repeated_column_is_refused(name):
    with pytest.raises(DataError, match=f"the column '{name}' is missing"):
        panel_from_rows(rows().drop(columns=name), "x")
    with pytest.raises(DataError, match=f"two columns for '{name}'"):
        panel_from_rows(pd.concat([rows(), rows()[[name]]], axis=1), "x")


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="there are no bars"):
        panel_from_rows(rows().iloc[:0], "x")


def test_what_is_incomplete_is_flagged_and_kept():
    assert kinds(rows()) == []
    assert kinds(rows().iloc[::-1]) == [("unsorted", "")]
    assert kinds(rows().drop(index=4)) == [("gap", "BBB")]
    assert kinds(rows().drop(index=[1, 4])) == [("gap", "")]
    assert kinds(rows().drop(index=3)) == []  # Listed a day later is no gap
    assert kinds(rows(days=(*DAYS, "2026-01-10"))) == [("not_a_session", ""), ("gap", ""), ("gap", "")]
    assert kinds(rows(days=("1990-01-02", "1990-01-03"))) == [("outside_calendar", "")]
    assert kinds(rows().assign(volume=[0, 1, 1, 1, 1, 1])) == [("zero_volume", "AAA")]
    shuffled = panel_from_rows(rows().sample(frac=1, random_state=1), "x")
    assert shuffled.digest == panel_from_rows(rows(), "x").digest


def test_wide_frames_are_checked_like_rows():
    panel = panel_from_rows(rows().drop(index=4), "x")
    wide = {f: panel.frame(f) for f in FIELDS}
    assert panel_from_frames(wide, "w").digest == panel.digest
    with pytest.raises(DataError, match="'volume' is missing"):
        panel_from_frames({f: wide[f] for f in FIELDS[:4]}, "w")
    with pytest.raises(DataError, match="two entries for the date 2026-01-05"):
        panel_from_frames({f: pd.concat([x, x.iloc[:1]]) for f, x in wide.items()}, "w")
    holed = wide["close"].copy()
    holed.loc[DAYS[2], "BBB"] = np.nan
    with pytest.raises(DataError, match="close is not a positive number for BBB on 2026-01-07"):
        panel_from_frames(wide | {"close": holed}, "w")


def test_a_market_series_is_checked():
    table = pd.DataFrame({"date": DAYS, "vix": [15.0, np.nan, 16.0], "spy": [600.0, 601.0, 602.0]})
    assert market_frame(table.iloc[::-1], "m")["vix"].tolist()[::2] == [15.0, 16.0]
    for broken, message in (
        (table.drop(columns="spy"), "'spy' is missing"),
        (table.assign(vix=[15.0, -1.0, 16.0]), "vix is -1.0 on 2026-01-06"),
        (table.assign(spy=[np.inf, 1.0, 1.0]), "spy is inf on 2026-01-05"),
        (pd.concat([table, table.iloc[:1]]), "two rows for 2026-01-05"),
    ):
        with pytest.raises(DataError, match=message):
            market_frame(broken, "m")


def test_files_that_cannot_be_used_name_themselves(tmp_path, monkeypatch):
    monkeypatch.delenv("V23_REAL_DATA", raising=False)
    good = tmp_path / "good.parquet"
    save_bars(panel_from_rows(rows(), "x"), good)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("symbol,date,open,high,low,close,volume\n")
    (tmp_path / "torn.parquet").write_bytes(good.read_bytes()[:400])
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)) * 9)
    (tmp_path / "short.csv").write_text("symbol,date,close\nAAA,2026-01-05,3\n")
    (tmp_path / "hollow").mkdir()
    for name in ("missing.parquet", "empty.csv", "header.csv", "torn.parquet", "binary.csv", "short.csv", "hollow", "bare_name"):
        with pytest.raises(InputError, match=name) as caught:
            load_bars(tmp_path / name if name != "bare_name" else name)
        assert "\n" not in str(caught.value)


def test_names_of_columns_follow_the_source(tmp_path):
    table = rows(symbols=("NA", "NAN"))
    wanted = panel_from_rows(table, "x").digest
    table.to_csv(tmp_path / "plain.csv", index=False)
    table.rename(columns=str.title).rename(columns={"Symbol": "Ticker"}).to_csv(tmp_path / "titled.CSV", index=False)
    stamped = table.assign(timestamp=pd.to_datetime(table["date"]).dt.tz_localize("America/New_York").dt.tz_convert("UTC"), vwap=1.0).drop(columns="date")
    stamped.set_index(["symbol", "timestamp"]).to_parquet(tmp_path / "alpaca.parquet")
    for name in ("plain.csv", "titled.CSV", "alpaca.parquet"):
        panel = load_bars(tmp_path / name)
        assert panel.symbols == ("NA", "NAN") and panel.digest == wanted, name


def test_a_folder_of_wide_files_and_what_lies_beside(tmp_path):
    panel = synthetic_panel(3, 20, date(2026, 1, 2), date(2026, 2, 27))
    for kind in ("csv", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        for f in FIELDS:
            frame = panel.frame(f).rename_axis("date")
            frame.to_csv(folder / f"{f}.csv") if kind == "csv" else frame.to_parquet(folder / f"{f}.parquet")
        panel.market.rename_axis("date").reset_index().rename(columns={"vix": "vix_close", "spy": "spy_close"}).to_parquet(folder / "market.parquet")
        pd.DataFrame({"symbol": ["XAAA", "XAAB", None], "sector": ["Energy", None, "Energy"]}).to_parquet(folder / "sectors.parquet")
        read = load_bars(folder)
        assert read.digest == panel.digest and not read.synthetic
        assert read.sectors == {"XAAA": "Energy"} and read.market.equals(panel.market)
    pd.DataFrame({"symbol": ["XAAA"]}).to_parquet(folder / "sectors.parquet")
    with pytest.raises(DataError, match="sectors.parquet: the column 'sector' is missing"):
        load_bars(folder)


def test_saved_bars_keep_their_label_and_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    panel = synthetic_panel(3, 20, date(2026, 1, 2), date(2026, 2, 27))
    path = tmp_path / "deep" / "bars.parquet"
    save_bars(panel, path)
    read = load_bars(path)
    assert read.synthetic and "synthetic market, seed 3" in read.source
    assert (read.digest, dict(read.sectors)) == (panel.digest, dict(panel.sectors)) and read.market.equals(panel.market)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_bars(panel.upto(panel.sessions[5]), path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["bars.parquet"]


def test_a_bare_name_is_found_in_the_data_folder(tmp_path, monkeypatch):
    save_bars(panel_from_rows(rows(), "x"), tmp_path / "mine.parquet")
    monkeypatch.setenv("V23_REAL_DATA", str(tmp_path))
    monkeypatch.chdir("/")
    assert load_bars("mine").symbols == load_bars("mine.parquet").symbols == ("AAA", "BBB")


class AlpacaAnswers:
    def __init__(self, bars):
        self.bars = bars

    def get_stock_bars(self, request):
        self.request = request
        return self.bars


def test_alpaca_bars_know_their_sessions_and_what_was_not_delivered():
    bar = {"t": "2026-01-05T05:00:00Z", "o": 10, "h": 11, "l": 9, "c": 10.5, "v": 7, "n": 1, "vw": 10}
    start, end = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC)
    client = AlpacaAnswers({"AAA": [bar, bar | {"t": "2026-01-06T05:00:00Z"}], "BBB": None})
    panel = bars_from_alpaca(client, ["AAA", "BBB"], start, end, feed="sip", adjustment="split")
    assert panel.sessions == (date(2026, 1, 5), date(2026, 1, 6)) and panel.source == "Alpaca sip, adjustment split"
    assert [(f.kind, f.symbol) for f in panel.findings] == [("no_bars", "BBB")]
    assert client.request.to_request_fields()["adjustment"].value == "split"
    with pytest.raises(DataError, match="no daily bars of AAA"):
        bars_from_alpaca(AlpacaAnswers({}), ["AAA"], start, end)
    with pytest.raises(InputError, match="tape"):
        bars_from_alpaca(client, ["AAA"], start, end, feed="tape")
    with pytest.raises(InputError, match="without a time zone"):
        bars_from_alpaca(client, ["AAA"], start.replace(tzinfo=None), end)


@pytest.mark.parametrize("raw", [True, False])
def test_alpacas_client_brings_the_simulated_exchanges_bars(raw):
    from alpaca.data.historical import StockHistoricalDataClient

    from v23.market_calendar import NEW_YORK
    from v23.simulator.exchange import Exchange
    from v23.simulator.server import SimulatorServer

    panel = synthetic_panel(3, 20, date(2026, 1, 2), date(2026, 2, 27))
    with SimulatorServer(Exchange(panel, 7, datetime(2026, 2, 27, 17, 0, tzinfo=NEW_YORK))) as server:
        client = StockHistoricalDataClient("key", "secret", url_override=server.url, raw_data=raw)
        fetched = bars_from_alpaca(client, panel.symbols, datetime(2026, 1, 2, tzinfo=NEW_YORK), datetime(2026, 2, 27, 16, 30, tzinfo=NEW_YORK))
    assert fetched.digest == panel.digest and not fetched.synthetic


def test_a_panel_shows_no_future():
    panel = synthetic_panel(3, 20, date(2026, 1, 2), date(2026, 2, 27))
    past = panel.upto(panel.sessions[9])
    assert past.sessions[-1] == panel.sessions[9] == past.market.index[-1].date()
    with pytest.raises(ValueError, match="read-only"):
        panel.close[0, 0] = 1.0
    assert past.digest != panel.digest
