"What the gate may and may not do, whatever the record: properties, unusable records, exit statuses, promotion."

import json
import math
import subprocess
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from v23.adapters.ledger import Ledger
from v23.domain import Purpose, Side
from v23.go_live import exit_code, validate_state
from v23.market_calendar import NEW_YORK, session_hours, sessions_between
from v23.monitoring.metrics import ParentQuality
from v23.paper_validator import PaperTradingValidator
from v23.report_schema import REPORT_SCHEMA
from v23.settings import ValidationSettings, load_settings
from v23.validation.go_live_rules import DRILLS, Selection, decide, run_checks, strict, weigh
from v23.validation.record import DayRecord, Drill, PaperRecord, Problem, Provenance, Size, Trade

CHECKS = ("c01_period", "c02_trades", "c03_fill", "c04_slippage", "c05_win", "c06_sharpe", "c07_errors", "c08_breakers", "c09_kill", "c10_alerts")
VERDICTS = ("NONE", "WEAK", "MODERATE", "STRONG", "CONTRADICTED")
kpis = st.fixed_dictionaries({}, optional={"fill": st.floats(0.5, 1.0), "slippage": st.floats(-20, 60), "warning": st.sampled_from(["", "errors"])})


@given(st.sets(st.sampled_from(CHECKS)), st.sampled_from(CHECKS), kpis, st.booleans())
def test_another_failed_check_never_improves_the_recommendation(failed, more, kpi, invalid):
    before, after = decide(failed, kpi, invalid), decide(failed | {more}, kpi, invalid)
    assert after.size_multiplier <= before.size_multiplier
    assert decide(failed, kpi, True).size_multiplier == 0.0


@given(st.sets(st.sampled_from(CHECKS)), kpis, st.sampled_from(VERDICTS))
def test_demanding_evidence_only_ever_takes_away(failed, kpi, verdict):
    matrix = decide(failed, kpi)
    asked = strict(matrix, verdict)
    assert asked == matrix or (matrix.size_multiplier > 0 and asked.size_multiplier == 0)


days = st.lists(st.tuples(st.floats(-0.08, 0.08), st.floats(-0.003, 0.003)), min_size=0, max_size=40)


@st.composite
def records(draw):
    "Records of any length and quality, also without readable days."
    paper = copy = 100_000.0
    rows = []
    for n, (move, gap) in enumerate(draw(days)):
        copy *= 1 + move
        paper *= 1 + move + gap
        names = ("A", "B") if draw(st.booleans()) else ("A", "C")
        rows.append(DayRecord(date(2026, 1, 5) + timedelta(days=n), paper if draw(st.integers(0, 30)) else math.nan, copy, names, ("A", "B"), n % 5 == 0))
    filled = draw(st.lists(st.tuples(st.integers(0, 10), st.floats(-40, 60)), max_size=80))
    parents = tuple(ParentQuality(str(n), date(2026, 1, 5), "A", Side.BUY, Purpose.ENTRY, "market", Decimal(10), Decimal(f), 100.0, 8.0, 100.0, cost if f else None, 1.0) for n, (f, cost) in enumerate(filled))
    drills = tuple(Drill(name, draw(st.booleans()), datetime(2026, 1, 5, tzinfo=NEW_YORK), "23") for _, _, name in DRILLS if draw(st.booleans()))
    trades = tuple(Trade(date(2026, 1, 9), "A", 1.0, 0.01) for _ in range(draw(st.integers(0, 40))))
    problems = (Problem("window", "a gap"),) if draw(st.integers(0, 5)) == 0 else ()
    return PaperRecord(100_000.0, tuple(rows), parents, trades, draw(st.integers(0, 2)), Provenance("x", True, "simulated", 1, "a", "23", 1), drills, problems)


@given(records(), st.sampled_from([Selection(), Selection(0.99, 0.99, 0.01, 30, "sure")]))
def test_evidence_never_changes_what_the_matrix_says(record, selection):
    gate = ValidationSettings()
    checks = run_checks(record, gate)
    assert [c.id for c in checks] == list(CHECKS)
    failed = [c.id for c in checks if not c.passed]
    before = decide(failed, {}, bool(record.problems))
    evidence = weigh(record, checks, gate, selection)
    assert evidence.verdict in VERDICTS and decide([c.id for c in checks if not c.passed], {}, bool(record.problems)) == before
    assert before.size_multiplier == 0 or (len(record.days) >= 14 and not record.problems)
    unread = any(not math.isfinite(d.paper_equity) for d in record.days)
    assert not (unread and evidence.verdict in ("WEAK", "MODERATE", "STRONG"))
    assert not ({"c05_win", "c06_sharpe"} - set(failed)) or not unread


@given(records())
def test_worse_sizes_or_signals_never_make_better_evidence(record):
    gate, order = ValidationSettings(), {v: n for n, v in enumerate(("CONTRADICTED", "NONE", "WEAK", "MODERATE", "STRONG"))}
    before = weigh(record, run_checks(record, gate), gate).verdict
    for worse in (replace(record, sizes=(Size(date(2026, 1, 5), "A", 300.0, 100.0),)), replace(record, days=tuple(replace(d, paper_signals=("Z",)) for d in record.days))):
        assert order[weigh(worse, run_checks(worse, gate), gate).verdict] <= order[before]


class Then:
    "A clock that is set by hand."

    at = datetime(2026, 1, 5, tzinfo=NEW_YORK)

    def now(self):
        return self.at

    def sleep(self, seconds): ...


def folder_of(path, closes, **opened):
    "A state folder whose record has these closing equities and nothing else."
    clock = Then()
    ledger = Ledger(path / "execution" / "ledger.sqlite3", clock, build="23")
    for session, equity in zip(sessions_between(date(2026, 1, 5), date(2026, 3, 31)), closes, strict=False):
        clock.at = session_hours(session).close + timedelta(minutes=1)
        ledger.record("session_opened", {"session": session, "equity": "100000", "cash": "100000", "account_id": "a", **opened})
        ledger.record("session_closed", {"session": session, "equity": equity, "cash": equity, "flow": 0.0, "positions": {}, "gross_exposure": 0.0})
    ledger.close()
    return path


SETTINGS = load_settings("/nonexistent", environ={})
SHORT = {
    "no folder": lambda p: p / "nowhere",
    "no sessions yet": lambda p: folder_of(p, []),
    "one session": lambda p: folder_of(p, ["100000"]),
    "days that cannot be read": lambda p: folder_of(p, ["100000", "NaN", "100000", "NaN"] * 5),
    "a flat account": lambda p: folder_of(p, ["100000"] * 20),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_record_that_says_little_gets_a_list_of_what_is_missing_and_exit_3(name, tmp_path):
    outcome = validate_state(SHORT[name](tmp_path), tmp_path / "reports", settings=SETTINGS)
    assert outcome["exit_code"] == 3 and outcome["valid"] and outcome["decision"]["size_multiplier"] == 0
    assert outcome["missing"] and len(outcome["checks"]) == 10 and outcome["evidence"]["verdict"] == "NONE"
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome


def test_without_bars_there_is_no_replay_and_no_evidence(tmp_path):
    state = folder_of(tmp_path, ["100000"] * 20)
    outcome = validate_state(state, tmp_path / "reports", bars=str(tmp_path / "gone.parquet"), settings=SETTINGS)
    assert outcome["exit_code"] == 3 and any("bars" in m for m in outcome["missing"]) and outcome["evidence"]["verdict"] == "NONE"


def test_an_account_of_nothing_and_less_is_judged_not_divided_by(tmp_path):
    state = folder_of(tmp_path, ["100000", "-5", "0", "100", "Infinity"])
    outcome = validate_state(state, tmp_path / "reports", settings=SETTINGS)
    assert outcome["exit_code"] == 4 and not any(c["passed"] for c in outcome["checks"] if c["id"] in ("c05_win", "c06_sharpe"))


def test_before_the_first_session_there_is_nothing_to_fix_but_everything_to_test(tmp_path):
    nothing = validate_state(tmp_path, tmp_path / "reports", settings=SETTINGS)
    assert (nothing["scenario"], nothing["recommendation"]) == ("KILL_SWITCH_UNTESTED", "Complete testing before go-live")
    errors = nothing["checks"][6]
    assert not errors["passed"] and errors["observed"] == "no session yet" and errors["evidence"] == "NOT_MEASURED"


@pytest.mark.parametrize("baseline", [math.nan, 0.0])
def test_a_missing_baseline_passes_nothing(baseline):
    gate = replace(ValidationSettings(), baseline_sharpe=baseline, baseline_win_rate=baseline)
    record = PaperRecord(100.0, tuple(DayRecord(date(2026, 1, 5) + timedelta(days=n), 100.0 + n % 3, 100.0 + n % 3) for n in range(20)), (), (), 0, Provenance("x", True, "simulated", 1, "a", "23", 1))
    assert not any(c.passed for c in run_checks(record, gate) if c.id in ("c05_win", "c06_sharpe"))


@pytest.mark.parametrize("garbage", [b"", b"not a database at all" * 100])
def test_a_ledger_that_is_no_ledger_is_invalid_not_a_crash(garbage, tmp_path):
    path = tmp_path / "execution" / "ledger.sqlite3"
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    outcome = validate_state(tmp_path, tmp_path / "reports", settings=SETTINGS)
    assert outcome["exit_code"] == (4 if garbage else 3) and outcome["decision"]["size_multiplier"] == 0


def test_the_runbook_lines_work_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    validator = PaperTradingValidator()
    validator.load_state()
    passed, results = validator.run_validation()
    checklist = validator.generate_go_live_checklist()
    assert not passed and len(results) == 10 and isinstance(checklist["recommendation"], str)


def test_the_command_prints_one_document_and_exits_3_and_4(tmp_path):
    def ran(state):
        done = subprocess.run(["v23", "validate", "--state", str(state), "--reports", str(tmp_path / "reports"), "--json"], capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout), done.stderr

    code, told, err = ran(folder_of(tmp_path / "short", ["100000"]))
    assert code == 3 and "Traceback" not in err and [c["id"] for c in told["checks"]] == list(CHECKS)
    assert {"verdict", "operations", "performance", "selection"} <= told["evidence"].keys() and {"required", "observed", "passed"} <= told["checks"][0].keys()
    gap = folder_of(tmp_path / "gap", ["100000", "123456"])
    ledger = Ledger(gap / "execution" / "ledger.sqlite3", Then())
    ledger.record("session_opened", {"session": "2026-01-07", "equity": "5", "cash": "5", "account_id": "b"})
    ledger.close()
    code, told, _ = ran(gap)
    assert code == 4 and not told["valid"] and {"window", "books"} & {p["kind"] for p in told["problems"]}


def validate_report(report):
    "Raise ValueError naming the first field of a report that does not follow the schema."
    for error in sorted(Draft202012Validator(REPORT_SCHEMA).iter_errors(report), key=lambda e: list(map(str, e.path))):
        raise ValueError(f"{'.'.join(map(str, error.path))}: {error.message[:200]}")


def test_the_report_follows_its_schema_and_a_wrong_one_does_not(tmp_path):
    report = PaperTradingValidator(settings=SETTINGS, state_dir=folder_of(tmp_path, ["100000", "100100"])).report()
    validate_report(report)
    assert REPORT_SCHEMA["$id"] == report["schema"]
    for key in ("checks", "recommendation", "evidence"):
        with pytest.raises(ValueError, match=key):
            validate_report({k: v for k, v in report.items() if k != key})
    with pytest.raises(ValueError, match="checks"):
        validate_report(report | {"checks": report["checks"][:9]})
    assert exit_code(report) == 3
