"The reference results of V21 on real bars: picks exact, daily returns to 1e-9, metrics to 1e-6."

import json

import numpy as np
import pandas as pd
import pytest

from v23.adapters.bars import load_bars
from v23.backtest import backtest

MODES = {
    "honest": {"fill": "next_open", "accounting": "drift", "universe": "pit"},
    "honest_next_close": {"fill": "next_close", "accounting": "drift", "universe": "pit"},
    "legacy": {"fill": "close", "accounting": "constant", "universe": "legacy_mean"},
}


@pytest.fixture(scope="module", params=["us_large_2020_2026", "us_mid_2018_2024"])
def bars(request, real_data):
    return request.param, load_bars(real_data / f"{request.param}.parquet")


@pytest.mark.realdata
@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_reproduced(mode, bars, real_data, tmp_path):
    name, panel = bars
    golden = real_data.parent / "golden" / name / mode
    backtest(panel, **MODES[mode]).write(tmp_path)
    if (golden / "picks.csv").exists():
        ours, theirs = pd.read_csv(tmp_path / "picks.csv"), pd.read_csv(golden / "picks.csv")
        assert list(ours.columns) == list(theirs.columns)
        different = (ours[["date", "rank", "symbol", "strict", "n_valid"]] != theirs[["date", "rank", "symbol", "strict", "n_valid"]]).any(axis=1)
        assert not different.any(), ours[different].head()
        np.testing.assert_allclose(ours["ret5"], theirs["ret5"], rtol=0, atol=1e-9)
    ours, theirs = pd.read_csv(tmp_path / "daily.csv"), pd.read_csv(golden / "daily.csv")
    assert list(ours.columns) == list(theirs.columns) and (ours["date"] == theirs["date"]).all()
    for column in ("gross", "cost", "net", "turnover"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=0, atol=1e-9, equal_nan=False, err_msg=column)
    ours, theirs = (pd.read_csv(f / "trades.csv") for f in (tmp_path, golden))
    assert list(ours.columns) == list(theirs.columns)
    assert ours[["symbol", "entry", "exit"]].equals(theirs[["symbol", "entry", "exit"]])  # In the same order
    np.testing.assert_allclose(ours[["gross", "net"]], theirs[["gross", "net"]], rtol=0, atol=1e-9, equal_nan=False)
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path, golden))
    figures = {k: v for k, v in theirs.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    for key, value in figures.items():
        assert ours[key] == pytest.approx(value, abs=1e-6), key
    assert set(ours["per_year"]) == set(theirs["per_year"])
    for key in ("run_kwargs", "params", "shape", "config"):
        assert ours[key] == theirs[key], key
    for year, values in theirs["per_year"].items():
        for key, value in values.items():
            assert ours["per_year"][year][key] == pytest.approx(value, abs=1e-6), (year, key)
