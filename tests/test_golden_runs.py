"Ten paper runs with one thing wrong each: the gate says of every one what it should, and lights that panel and no other."

import json

import golden_runs
import pytest

from v23.go_live import exit_code
from v23.reports import go_live_html, remote_resources, summary_markdown

# name: the panel it lights, the row of the matrix, the evidence, what operations and performance are
EXPECTED = {
    "aligned": ("", "ALL_PASS", "WEAK", "DEMONSTRATED"),
    "zero edge": ("edge", "PERFORMANCE_MISALIGNED", "WEAK", "DEMONSTRATED"),
    "lagged": ("signals", "ALL_PASS", "NONE", "NOT DEMONSTRATED"),
    "costs doubled": ("costs", "MINOR_WARNINGS", "CONTRADICTED", "CONTRADICTED"),
    "a tenth missed": ("missed", "EXT_EXECUTION_MISALIGNED", "CONTRADICTED", "CONTRADICTED"),
    "wrong sizing": ("sizing", "ALL_PASS", "NONE", "NOT DEMONSTRATED"),
    "tampered day": ("chain", "EXT_INVALID_RECORD", "NONE", "NOT DEMONSTRATED"),
    "cherry-picked": ("window", "EXT_INVALID_RECORD", "NONE", "NOT DEMONSTRATED"),
    "cut off": ("window", "EXT_INVALID_RECORD", "NONE", "NOT DEMONSTRATED"),
    "fill twice": ("fills", "EXT_INVALID_RECORD", "NONE", "NOT DEMONSTRATED"),
    "time zone": ("clock", "EXT_INVALID_RECORD", "NONE", "NOT DEMONSTRATED"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_lights_its_own_panel_and_no_other(name):
    r = golden_runs.report(name)
    panel, scenario, verdict, operations = EXPECTED[name]
    assert [p["name"] for p in r["panels"] if p["lit"]] == ([panel] if panel else [])
    assert (r["decision"]["scenario"], r["evidence"]["verdict"], r["evidence"]["operations"]) == (scenario, verdict, operations)
    assert r["valid"] == (scenario != "EXT_INVALID_RECORD") and exit_code(r) == (4 if not r["valid"] else 0 if r["decision"]["size_multiplier"] else 3)


@pytest.mark.parametrize("name", ["aligned", "zero edge", "lagged", "costs doubled", "a tenth missed", "wrong sizing"])
def test_the_difference_to_the_replay_is_explained_to_the_cent(name):
    d = golden_runs.report(name)["difference"]
    assert d["cents"]["unexplained"] == 0 and sum(d["cents"].values()) == round(d["dollars"] * 100)
    by_name = sum(v for row in d["names"].values() for v in row.values())
    assert by_name == pytest.approx(d["dollars"], abs=0.005)


def test_the_cause_is_the_largest_part_of_the_difference():
    parts = {name: golden_runs.report(name)["difference"]["parts_dollars"] for name in ("lagged", "costs doubled", "a tenth missed")}
    assert max(parts["costs doubled"], key=lambda k: abs(parts["costs doubled"][k])) == "impact" and parts["costs doubled"]["impact"] < 0
    assert max(parts["lagged"], key=lambda k: abs(parts["lagged"][k])) == "signal"
    assert max(parts["a tenth missed"], key=lambda k: abs(parts["a tenth missed"][k])) == "missed"


def test_the_lists_of_a_lagged_run_are_known_to_be_a_session_old():
    assert golden_runs.report("lagged")["signals"]["late_match"] == 1.0
    assert golden_runs.report("aligned")["signals"] | {"late_match": None} == golden_runs.report("aligned")["signals"]


def test_demanding_evidence_refuses_what_the_matrix_would_let_through():
    for name in ("aligned", "lagged", "wrong sizing"):
        matrix, strict = golden_runs.report(name), golden_runs.validator(name).report(strict_evidence=True)
        assert exit_code(matrix) == 0 and exit_code(strict) == 3
        assert strict["matrix"] == matrix["matrix"] and strict["decision"]["scenario"] == "EXT_STRICT_EVIDENCE"


def test_a_record_says_the_same_every_time_and_a_second_look_at_it_is_not_another_look():
    again = golden_runs.validator("aligned").report()
    assert json.dumps(again, sort_keys=True) == json.dumps(golden_runs.report("aligned"), sort_keys=True)
    assert again["looks"]["all"] == [{"sessions": 20, "session": again["days"][-1]["session"], "planned": False}]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_pages_of_a_run_are_whole(name, tmp_path):
    r = golden_runs.report(name)
    page, text = go_live_html(r, tmp_path / "page.html").read_text(), summary_markdown(r)
    assert remote_resources(page) == [] and r["recommendation"] in page and r["recommendation"] in text
    assert all(c["name"] in page and c["name"] in text for c in r["checks"])
    lit = [p for p in r["panels"] if p["lit"]]
    assert page.count('class="fail">LOOK') == len(lit) and (not lit or lit[0]["name"] in text)


def test_F91_an_edited_day_is_invalid_whoever_mends_the_chain(tmp_path):
    assert "edited" in golden_runs.report("tampered day")["problems"][0]["detail"]

    def richer(e):
        if e.kind == "session_closed" and e.body["session"] == golden_runs.GOOD.panel.sessions[-14].isoformat():
            return [(e.kind, dict(e.body) | {"equity": "104000.00"})]
        return [(e.kind, e.body)]

    def dropped(e):
        gone = e.kind == "session_closed" and e.body["session"] == golden_runs.GOOD.panel.sessions[-14].isoformat()
        return [] if gone else [(e.kind, e.body)]

    for n, (change, kinds) in enumerate(((richer, {"books"}), (dropped, {"window"}))):
        golden_runs.forge(golden_runs.run("aligned"), tmp_path / str(n), change)
        r = golden_runs.PaperTradingValidator(settings=golden_runs.plain_settings(), panel=golden_runs.GOOD.panel, state_dir=tmp_path / str(n)).report()
        assert {p["kind"] for p in r["problems"]} == kinds | ({"window"} if "snapshots" in str(r["problems"]) else set()) and exit_code(r) == 4


def test_F92_a_fill_twice_and_stamps_of_another_zone_are_invalid():
    assert "is there 2 times" in golden_runs.report("fill twice")["problems"][0]["detail"]
    shifted = golden_runs.report("time zone")
    assert len(shifted["problems"]) > 100 and all("its order was planned for" in p["detail"] for p in shifted["problems"])


def test_F93_a_cherry_picked_window_and_a_reset_account_are_invalid(tmp_path):
    assert any("begins in the middle" in p["detail"] for p in golden_runs.report("cherry-picked")["problems"])
    assert any("its end was cut off" in p["detail"] for p in golden_runs.report("cut off")["problems"])
    day = golden_runs.GOOD.panel.sessions[-8].isoformat()

    def reset(e):
        return [(e.kind, dict(e.body) | {"cash": "100000", "equity": "100000"})] if e.kind == "session_opened" and e.body["session"] == day else [(e.kind, e.body)]

    def another(e):
        return [(e.kind, dict(e.body) | {"account_id": "another"})] if e.kind == "session_opened" and e.body["session"] >= day else [(e.kind, e.body)]

    for n, (change, word) in enumerate(((reset, "was reset"), (another, "2 accounts"))):
        golden_runs.forge(golden_runs.run("aligned"), tmp_path / str(n), change)
        r = golden_runs.PaperTradingValidator(settings=golden_runs.plain_settings(), panel=golden_runs.GOOD.panel, state_dir=tmp_path / str(n)).report()
        assert any(word in p["detail"] for p in r["problems"]) and exit_code(r) == 4
    assert len(r["epochs"]) == 2 and r["epochs"][1]["why"] == "another account" and r["epochs"][1]["first"] == day


def test_F94_a_baseline_that_was_changed_afterwards_is_invalid_and_nan_fails(tmp_path):
    day = golden_runs.GOOD.panel.sessions[-8].isoformat()

    def easier(e):
        if e.kind == "session_opened" and e.body["session"] >= day:
            return [(e.kind, dict(e.body) | {"terms": dict(e.body["terms"]) | {"gate": "0" * 16}})]
        return [(e.kind, e.body)]

    def blind(e):
        return [(e.kind, dict(e.body) | {"equity": "NaN"})] if e.kind == "session_closed" and e.body["session"] == day else [(e.kind, e.body)]

    def new_rules(e):
        if e.kind == "session_opened" and e.body["session"] >= day:
            return [(e.kind, dict(e.body) | {"terms": dict(e.body["terms"]) | {"rules": "0" * 16}})]
        return [(e.kind, e.body)]

    found = []
    for n, change in enumerate((easier, blind, new_rules)):
        golden_runs.forge(golden_runs.run("aligned"), tmp_path / str(n), change)
        found.append(golden_runs.PaperTradingValidator(settings=golden_runs.plain_settings(), panel=golden_runs.GOOD.panel, state_dir=tmp_path / str(n)).report())
    changed, unread, short = found
    assert [p["kind"] for p in changed["problems"]] == ["terms"] and exit_code(changed) == 4
    assert exit_code(unread) == 3 and not any(c["passed"] for c in unread["checks"] if c["id"] in ("c05_win", "c06_sharpe")) and unread["evidence"]["verdict"] == "NONE"
    assert short["valid"] and short["checks"][0]["observed"] == "8 complete sessions of 20" and exit_code(short) == 3
    power = golden_runs.report("aligned")
    assert all(c["p_pass_aligned"] is not None and c["p_pass_null"] is not None for c in power["checks"] if c["id"] in ("c05_win", "c06_sharpe"))
