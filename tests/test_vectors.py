"""Numeric vectors with sources: every file of the vectors' folder, every `fn` mapped to a function of v23.

A vector whose function v23 does not have yet is listed with the module that will bring it; once that module exists, the
vector has to be mapped.
"""

import dataclasses
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

from planted_rules import rule, universe
from v23.lookahead import check_strategy
from v23.settings import RiskLimits, SizingSettings
from v23.sizing import kelly
from v23.sizing.multipliers import combined_multipliers
from v23.sizing.targets import size_portfolio
from v23.validation import go_live_rules as gate
from v23.validation import looks
from v23.validation import sharpe as sr
from v23.validation import statistics as st

LATER: dict[str, str] = {}


def folder():
    if os.environ.get("V23_VECTORS"):
        return Path(os.environ["V23_VECTORS"])
    return Path(os.environ["V23_REAL_DATA"]).parent / "vectors" if os.environ.get("V23_REAL_DATA") else None


def vectors():
    where = folder()
    if where is None or not where.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason="neither V23_VECTORS nor V23_REAL_DATA names a folder"))]
    files = sorted(where.glob("*.json"))
    return [pytest.param(v, id=v["id"]) for f in files for v in json.loads(f.read_text())["vectors"]]


def sized(i):
    "portfolio_sizer: one Kelly for n equal names, or a list of them."
    equal = "n" in i
    names = [f"N{k}" for k in range(i["n"] if equal else len(i["kelly"]))]
    settings = SizingSettings(kelly_fraction=i["c"], max_position=i["cap"], max_gross_exposure=i["G_max"], target_volatility=i["target_vol"], max_sector=1.0)
    m = combined_multipliers(i["drawdown"], i["vix"], 0, i["unit_vol"], RiskLimits(), settings)
    s = size_portfolio(names, i["kelly"] if equal else dict(zip(names, i["kelly"], strict=True)), m, {}, settings)
    pick = (lambda values: values[0]) if equal else (lambda values: values)
    return {
        "D": m.drawdown.value, "R": m.regime.value, "V": m.volatility.value, "M": m.product,
        "doc": pick([n.document for n in s.names]), "doc_gross": math.fsum(n.document for n in s.names),
        "budget": s.budget, "scale": s.names[0].scale, "final": pick([n.final for n in s.names]), "final_gross": s.gross,
    }  # fmt: skip


def continuous(i):
    f = kelly.kelly_continuous(i["m"], i["s"], i["r"])
    tail = 2 * i["r"] / ((i["m"] - i["r"]) / i["s"]) ** 2
    full, half = 1 + tail * 1, 0.0
    a = {c: 2 / c - 1 + 2 * i["r"] * i["s"] ** 2 / ((i["m"] - i["r"]) ** 2 * c * c) for c in (1.0, 0.5)}
    assert math.isclose(full, a[1.0]) and half == 0.0
    return {
        "f": f.fraction, "g": f.growth, "sd": f.volatility, "a_full": a[1.0], "a_half": a[0.5],
        "P_half_full": kelly.ruin_probability(0.5, 1.0, a[1.0] - 1.0), "P_half_half": kelly.ruin_probability(0.5, 0.5, a[0.5] - 3.0),
    }  # fmt: skip


def boundary(i):
    kind = i["check"]
    if kind == "c01_period":
        return gate.enough(i["trading_days"], 14)
    if kind == "c03_fill":
        return gate.fill_passes(i["filled"], i["intended"])
    if kind == "c04_slippage":
        return gate.slippage_passes(i["mean_bps"])
    if kind == "c05_win":
        return gate.win_rate_passes(i["wins"], i["n"], i["backtest"])
    return gate.sharpe_passes(i["paper"], i["backtest"])


def decision(i):
    d = gate.decide(i["failed"], i["kpi"])
    return {"scenario": d.scenario, "recommendation": d.recommendation}


def intervals(i):
    k, n = i["k"], i["n"]
    pairs = {"wilson": st.wilson(k, n), "clopper_pearson": st.clopper_pearson(k, n), "beta_binomial_cs_uniform_prior": st.proportion_sequence(k, n)}
    return {name: [x.low, x.high] for name, x in pairs.items()}


def yuen(i):
    r = st.yuen_test(i["x_bps"], i["mu0"])
    return {"mean": r.mean, "trimmed_mean": r.trimmed_mean, "se": r.standard_error, "df": r.degrees, "t": r.t, "upper95": r.upper, "plain_upper95": r.plain_upper, "median": r.median}


def shortfall(i):
    r = st.implementation_shortfall(i["side"], i["Q"], i["decision"], i["arrival"], [tuple(f) for f in i["fills"]], i["fees"], i["end"])
    notional = i["Q"] * i["decision"]
    return {k: v / notional * 1e4 for k, v in r.items()}


def ledoit(i):
    t = range(1, i["T"] + 1)
    x = [0.010 + 0.03 * math.sin(1.7 * k) + 0.015 * math.cos(0.37 * k * k) for k in t]
    y = [0.008 + 0.025 * math.sin(1.7 * k + 0.2) + 0.012 * math.cos(0.53 * k * k) for k in t]
    r = sr.ledoit_wolf(x, y)
    return {"sr": [r["sr_x"], r["sr_y"]], **{k: r[k] for k in ("diff", "se_hac", "se_iid", "p_hac", "bandwidth")}}


def pair(i):
    return {"14.7%/y": sr.paired_days(0.1474, i["te_ann"]), "7.4%/y": sr.paired_days(0.0737, i["te_ann"])}


def annual_min_trl(i):
    root = math.sqrt(i["periods"])
    return sr.min_track_record(i["sr_ann"] / root, i["sr0_ann"] / root, i["skew"], i["kurt"], i["conf"]) / i["periods"]


def planted(i):
    "Look-ahead and start-up flags of a rule with a mistake planted."
    report = check_strategy(rule(i["bug"]), universe(), i["cuts"])
    return {"lookahead_flag": report.looks_ahead, "startup_flag": not report.probe("warm-up").passed}


FN = {
    "monte carlo: P(any false alarm), no drift": lambda i: looks.peeking(i["paths"]),
    "planted_bug_detection": planted,
    "kelly_binary": lambda i: kelly.kelly_binary(i["p"], i["b"]),
    "kelly_continuous": continuous,
    "P(ever wealth<=x*initial)=x^(2/c-1), r=0": lambda i: {x: kelly.ruin_probability(float(x), i["c"]) for x in ("0.9", "0.85", "0.8", "0.75", "0.5")},
    "largest c with P(ever<=.8)<=alpha": lambda i: [kelly.largest_share_for_drawdown(a) for a in i["alpha"]],
    "overbet factor of summing single-name Kelly": lambda i: [kelly.overbet_factor(i["n"], r) for r in i["rho"]],
    "simultaneous even-money Kelly each": lambda i: kelly.simultaneous_even_money(i["n"], i["p"]),
    "kelly_multi inv(C)mu": lambda i: kelly.kelly_multi(i["mu"], i["vol"], i["rho"]),
    "portfolio_sizer(30 equal names)": sized,
    "portfolio_sizer": sized,
    "go_live_decision": decision,
    "check_boundary": boundary,
    "binomial_intervals_95": intervals,
    "min_orders_for_exact_95pct_lower_bound>=.95": lambda i: st.orders_for_lower_bound(i["misses"]),
    "clopper_one_sided_95_lower": lambda i: st.exact_lower_bound(i["k"], i["n"]),
    "P(pass win-rate check +-5pp of 55.1%)": lambda i: {p: st.pass_probability_of_wins(*i["k_range"], i["n"], float(p)) for p in ("0.551", "0.533", "0.5", "0.45")},
    "upper95_rate_given_zero_events": lambda i: st.zero_event_rate(i["days"]),
    "beta_binomial_e_value(uniform prior)": lambda i: st.beta_binomial_e(i["k"], i["n"], i["p0"]),
    "t_test_e_value(g=1)": lambda i: st.t_e_value(i["t"], i["n"], i["g"]),
    "always_valid_t_critical(alpha=.05,g=1)": lambda i: st.always_valid_t(i["n"]),
    "wald_asn_H1": lambda i: st.wald_sample_size(i["p0"], i["p1"], i["alpha"], i["beta"]),
    "one_sample_yuen_10pct": yuen,
    "implementation_shortfall_bps": shortfall,
    "spearman_kendall": lambda i: list(st.rank_agreement(i["a"], i["b"])),
    "dtw_abs_distance": lambda i: st.time_warp_distance(i["a"], i["b"]),
    "chi2 CI multipliers of tracking error": lambda i: list(dataclasses.astuple(st.volatility_interval(i["n"], i["conf"]))),
    "ledoit_wolf_hac_parzen": ledoit,
    "days to detect Sharpe drop, backtest Sharpe known, one-sided 5%, power 80%": lambda i: sr.days_to_detect_drop(i["sr_ann"], i["drop"]),
    "exact nct power": lambda i: {"-30%": sr.drop_test_power(i["sr0_ann"], 0.3, i["n"]), "-100%": sr.drop_test_power(i["sr0_ann"], 1.0, i["n"])},
    "P(paper Sharpe >= 0.7*1.5377)": lambda i: {t: sr.pass_probability(float(t), i["n"], 0.7 * 1.5376879) for t in ("1.5376879", "1.0763815", "0.8", "0.0", "-1.0")},
    "P(30d Sharpe <0.5), (<1.0) when true=1.54": lambda i: [1 - sr.pass_probability(1.5376879, i["n"], h) for h in (0.5, 1.0)],
    "paired days (paper-replay), 80% power, one-sided 5%": pair,
    'n*SR^2 to reject SR=0, one-sided 5% (SharpeR "e=nz^2")': lambda i: sr.sample_rule_of_thumb(i["power"]),
    "lo_se": lambda i: sr.lo_se(i["sr"], i["T"]),
    "lo_annualisation_eta_ar1": lambda i: sr.lo_annualisation(i["q"], i["rho"]),
    "mertens_se(n-1)": lambda i: sr.mertens_se(i["sr"], i["n"], i["skew"], i["kurt"]),
    "psr_2012(se at SR_hat, n-1)": lambda i: sr.psr_2012(i["sr"], i["n"], i["sr0"], i["skew"], i["kurt"]),
    "psr_2025(se at SR0, T)": lambda i: sr.psr_2025(i["sr"], i["T"], i["sr0"], i["skew"], i["kurt"], i.get("rho", 0.0)),
    "min_trl_obs": lambda i: sr.min_track_record(i["sr"], i["sr0"], i["skew"], i["kurt"], i["conf"]),
    "min_trl_obs/12": lambda i: sr.min_track_record(i["sr"], i["sr0"], i["skew"], i["kurt"], i["conf"]) / 12,
    "min_trl_years": annual_min_trl,
    "exact_sharpe_ci_ann": lambda i: list(sr.exact_sharpe_ci(i["sr_hat_ann"], i["n"], i["conf"])),
    "se_2025(SR,T)": lambda i: sr.se_2025(i["sr"], i["T"], i["skew"], i["kurt"], i.get("rho", 0.0)),
    "type II error of SR test, alpha .05": lambda i: sr.type_two_error(i["sr0"], i["sr1"], i["T"], i["skew"], i["kurt"]),
    "oFDR=P[H0|SR>SR_obs]": lambda i: sr.observed_fdr(i["sr"], i["sr0"], i["sr1"], i["T"], i["p_H1"], i["skew"], i["kurt"]),
    "expected_max_sharpe": lambda i: sr.expected_max_sharpe(i["N"], i["V"]),
    "dsr": lambda i: sr.deflated_sharpe(i["sr"], i["N"], i["V"], i["n"], i["skew"], i["kurt"]),
    "expected_max_z": lambda i: sr.expected_max_z(i["N"]),
    "min_backtest_length_years": lambda i: sr.min_backtest_years(i["N"], i["target_sr_ann"]),
    "comb(S,S/2)": lambda i: [sr.cscv_splits(s) for s in i["S"]],
}


def close(ours, expected, tolerance, where=""):
    "Numbers within the tolerance, everything else equal."
    if isinstance(expected, dict):
        assert ours.keys() == expected.keys(), where
        for key in expected:
            close(ours[key], expected[key], tolerance, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(ours) == len(expected), where
        for n, (a, b) in enumerate(zip(ours, expected, strict=True)):
            close(a, b, tolerance, f"{where}[{n}]")
    elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
        assert abs(ours - expected) <= tolerance, f"{where}: {ours} is not {expected} ± {tolerance}"
    else:
        assert ours == expected, where


@pytest.mark.parametrize("vector", vectors())
def test_a_vector_is_reproduced(vector):
    name = vector["fn"]
    if name in LATER and importlib.util.find_spec(LATER[name]) is None:
        pytest.skip(f"{name}: {LATER[name]} will bring it")
    assert name in FN, f"no function of v23 is mapped to {name!r}"
    close(FN[name](vector["inputs"]), vector["expected"], vector["abs_tol"])
