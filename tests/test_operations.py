"What the owner of a desk and its jobs survive: ends, hangs, stops, jumps of the clock, pages that fail, leak or overlap."

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from v23 import jobs
from v23.control import ControlRefused, NoOwner, ask
from v23.errors import InputError, OwnedError
from v23.jobs import JobFailed, read_history, run_job
from v23.keeper import Keeper, Patience, read_pulse
from v23.logs import log_to, stop_logging
from v23.page_runner import PageRunner
from v23.schedule import day_plan, due_jobs, missed_jobs
from v23.settings import load_settings
from v23.supervisor import SupervisorPlan, own
from v23.trading_desk import safe_mode

DAY = date(2026, 1, 20)
PARAMETERS = 'word: str = "a"  # A word\ncount: int = 1  # How many\nresult: str = ""  # Where'
WRITE = "from v23.jobs import write_result\nwrite_result(result, {'word': word, 'count': count})"


def page(*cells: str) -> str:
    def cell(n: int, source: str) -> dict:
        return {"cell_type": "code", "id": f"c{n}", "metadata": {"tags": ["parameters"]} if n == 0 else {}, "source": source, "outputs": [], "execution_count": None}

    return json.dumps({"cells": [cell(n, s) for n, s in enumerate((PARAMETERS, *cells))], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture(scope="module")
def runner():
    with PageRunner(["v23.jobs"]) as prepared:
        yield prepared


@pytest.fixture
def pages(tmp_path, monkeypatch):
    "A folder of job pages of this test."
    folder = tmp_path / "pages"
    folder.mkdir()
    monkeypatch.setattr(jobs, "jobs_folder", lambda: folder)
    return folder


def test_F87_a_rerun_gives_the_same_bytes_and_two_entries(pages, tmp_path, runner):
    (pages / "a.ipynb").write_text(page("print(word)", WRITE))
    reports = tmp_path / "reports"
    results = [run_job("a", {"word": "x"}, reports, DAY, runner=runner).html.with_name("a.result.json").read_bytes() for _ in range(2)]
    assert results[0] == results[1]
    assert [e["status"] for e in read_history(reports)] == ["done", "done"] and len({e["result_sha256"] for e in read_history(reports)}) == 1


def test_F87_F88_a_job_that_dies_keeps_the_last_good_page_and_shows_its_own(pages, tmp_path, runner):
    reports, folder = tmp_path / "reports", tmp_path / "reports" / "runs" / DAY.isoformat()
    (pages / "a.ipynb").write_text(page(WRITE, "if word == 'bad': raise ValueError('no')", "if word == 'dead': import os; os._exit(7)"))
    run_job("a", {}, reports, DAY, runner=runner)
    good = {p: p.read_bytes() for p in (folder / "a.ipynb", folder / "a.html", folder / "a.result.json")}
    with pytest.raises(JobFailed, match="ValueError: no"):
        run_job("a", {"word": "bad"}, reports, DAY, runner=runner)
    assert "ValueError" in (folder / "a.failed.html").read_text()
    with pytest.raises(JobFailed, match="ended with 7"):
        run_job("a", {"word": "dead"}, reports, DAY, runner=runner)
    assert {p: p.read_bytes() for p in good} == good
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]
    assert json.loads((folder / "a.failed.ipynb").read_text())["metadata"]["papermill"]["exception"] is True
    assert run_job("a", {}, reports, DAY, runner=runner).result == {"word": "a", "count": 1}


def test_F87_two_at_once_one_is_refused_with_75(pages, tmp_path, runner):
    (pages / "a.ipynb").write_text(page(WRITE))
    folder = tmp_path / "reports" / "runs" / DAY.isoformat()
    folder.mkdir(parents=True)
    held = jobs.lease("a", DAY, folder)
    with pytest.raises(OwnedError, match="running already") as refused:
        run_job("a", {}, tmp_path / "reports", DAY, runner=runner)
    assert refused.value.exit_code == 75
    held.release()
    run_job("a", {}, tmp_path / "reports", DAY, runner=runner)


def test_F87_a_page_that_hangs_is_ended_and_the_next_runs(pages, tmp_path, runner):
    (pages / "a.ipynb").write_text(page("import subprocess, time\nif word == 'slow': subprocess.Popen(['sleep', '1234']); time.sleep(60)", WRITE))
    began = time.monotonic()
    with pytest.raises(JobFailed, match="not done after 1 s"):
        run_job("a", {"word": "slow"}, tmp_path / "reports", DAY, runner=runner, timeout_s=1)
    assert time.monotonic() - began < 20
    assert "sleep\x001234" not in "".join(p.read_text() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK) and p.exists())
    run_job("a", {}, tmp_path / "reports", DAY, runner=runner)


def test_F89_parameters_are_typed_and_never_code(pages, tmp_path, runner):
    (pages / "a.ipynb").write_text(page(WRITE))
    evil = "__import__('os').system('touch owned')"
    assert run_job("a", {"word": evil}, tmp_path / "reports", DAY, runner=runner).result["word"] == evil
    assert not Path("owned").exists()
    for given in ({"count": evil}, {"wrod": "x"}, {"api_key": "x"}, {"count": "1.5"}):
        with pytest.raises(InputError):
            run_job("a", given, tmp_path / "reports", DAY, runner=runner)


@pytest.mark.parametrize("how", ["print(os.environ['MY_SECRET'])", "write_result(result, {'x': os.environ['MY_SECRET']})", "raise ValueError(os.environ['MY_SECRET'])"])
def test_F89_a_secret_in_an_output_fails_the_job_and_deletes_the_output(pages, tmp_path, runner, how):
    (pages / "a.ipynb").write_text(page("import os", WRITE, how))
    canary = "canary<&>'\"/0123"
    with pytest.raises(JobFailed):
        run_job("a", {}, tmp_path / "reports", DAY, {"MY_SECRET": canary}, runner=runner)
    written = "".join(p.read_text() for p in (tmp_path / "reports").rglob("*") if p.is_file())
    assert canary not in written and "0123" not in written


def test_a_lost_runner_is_made_anew(pages, tmp_path):
    (pages / "a.ipynb").write_text(page(WRITE))
    with PageRunner(["v23.jobs"]) as mine:
        run_job("a", {}, tmp_path / "reports", DAY, runner=mine)
        mine._process.kill()
        mine._process.wait()
        run_job("a", {}, tmp_path / "reports", DAY, runner=mine)


def test_F54_an_owner_that_ends_is_started_again_and_the_third_end_is_safe_mode(tmp_path):
    script = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + sys.argv[-1] + '\\n' if p.exists() else 'first\\n'); sys.exit(0 if sys.argv[-1] == '--safe-mode' else 1)"
    told, waits = [], []
    keeper = Keeper([sys.executable, "-c", script, str(tmp_path / "lives")], tmp_path, patience=Patience(first_wait_s=0.05), say=told.append, sleep=lambda s: waits.append(s) or time.sleep(s))
    assert keeper.run() == 0
    assert len((tmp_path / "lives").read_text().splitlines()) == 4 and told[-1].endswith("in safe mode") and "0.2 s" in told[-1]


STARVED = """
import resource, runpy, sys
if "--safe-mode" not in sys.argv:
    resource.setrlimit(resource.RLIMIT_AS, (150_000_000, 150_000_000))
runpy.run_module("v23.supervisor", run_name="__main__")
"""


def test_F54_an_owner_out_of_memory_is_started_again_and_the_third_time_it_sells_and_adopts_only(tmp_path):
    import threading

    state, told, codes = tmp_path / "state", [], []
    command = [sys.executable, "-c", STARVED, f"state={state}", f"reports={tmp_path / 'reports'}", "speed=60", "start=2025-07-02"]
    keeper = Keeper(command, state, patience=Patience(first_wait_s=0.05), say=told.append)
    life = threading.Thread(target=lambda: codes.append(keeper.run()))
    life.start()
    try:
        until, status = time.monotonic() + 120, {}
        while not status and time.monotonic() < until:
            try:
                status = ask(state, "status", timeout=30)
            except NoOwner:
                time.sleep(0.1)
    finally:
        began = time.monotonic()
        keeper.stop()
        life.join(60)
    assert [re.sub(r".*starting again in (\S+) s", r"\1", t) for t in told] == ["0.05", "0.1", "0.2, in safe mode"]
    assert "three times in ten minutes" in status["safe_mode"] and not status["entries_allowed"]
    assert codes == [0] and time.monotonic() - began < 12 and read_pulse(state)[0]["stopped"] == "told to stop"  # and not ended by force, though its pages' process was hardly there


def test_F54_F56_a_full_disk_does_not_end_what_starts_the_owner(tmp_path):
    script = """
import resource, sys
from pathlib import Path
from v23.keeper import Keeper, Patience
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
owner = "import sys; sys.exit(0 if sys.argv[-1] == '--safe-mode' else 1)"
raise SystemExit(Keeper([sys.executable, "-c", owner], Path(sys.argv[1]), patience=Patience(first_wait_s=0.01), say=print).run())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("starting again") == 3 and "safe mode" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert not (tmp_path / "supervisor" / "crashes.json").exists() or (tmp_path / "supervisor" / "crashes.json").stat().st_size == 0


def test_F54_an_owner_without_a_pulse_is_ended(tmp_path):
    told = []
    keeper = Keeper([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, patience=Patience(first_wait_s=0.01, silent_s=0.5), say=told.append)
    keeper.sleep = lambda s: keeper.stop()
    began = time.monotonic()
    keeper.run()
    assert told[0].startswith("ending the owner: no pulse") and time.monotonic() - began < 30


@pytest.fixture(scope="module")
def supervised(tmp_path_factory):
    "An owner whose loop never began: told to stop as soon as it was ready, after what a test does to it."
    folder = tmp_path_factory.mktemp("owned")

    def live(what, **plan):
        def ready(supervisor):
            supervisor.set_table()
            supervisor.begin()
            what(supervisor)
            supervisor.clock.stop()

        return own(SupervisorPlan(state=str(folder / "state"), reports=str(folder / "reports"), speed=0, start="2025-07-02", **plan), ready)

    return live



def test_the_plan_of_the_day_is_written_for_pages_that_show_it_and_only_when_it_changes(supervised):
    told = []

    def look(supervisor):
        path = supervisor.state / "supervisor" / "schedule.json"
        supervisor.show_schedule()
        told.append((json.loads(path.read_text())["data"], path.stat().st_mtime_ns))
        supervisor.show_schedule()
        told.append((json.loads(path.read_text())["data"], path.stat().st_mtime_ns))
        supervisor.doing = "rebalance"
        supervisor.show_schedule()
        told.append((json.loads(path.read_text())["data"], path.stat().st_mtime_ns))
        supervisor.doing = ""

    supervised(look)
    assert told[0] == told[1] and told[2] != told[1]
    states = {j["name"]: j["state"] for j in told[0][0]["jobs"]}
    assert list(states)[:1] == ["market_open"] and {"intraday_check", "rebalance", "market_close", "validation"} <= set(states) and list(states.values()).count("next") == 1
    assert {j["name"]: j["state"] for j in told[2][0]["jobs"]}["rebalance"] == "running"
    assert all(j["at"] < j["until"] for j in told[0][0]["jobs"])


def test_F60_a_jump_of_the_clock_holds_entries_until_the_books_are_compared(supervised):
    def jump(s):
        s.desk.gate.ready, s.clock.virtual = True, False
        s._mark = (time.monotonic(), s.clock.now() - timedelta(hours=1))
        s.look()
        assert not s.desk.gate.ready and s.desk.gate.pauses()
        assert s.desk.ledger.last("error").body["code"] == "CLOCK_JUMP"
        s.clock.virtual = True

    supervised(jump)


def test_F54_safe_mode_is_in_the_ledger_and_stops_entries(supervised):
    seen = []
    supervised(lambda s: seen.append(safe_mode(s.desk.ledger)))
    supervised(lambda s: seen.append(safe_mode(s.desk.ledger)), safe_mode=True)
    supervised(lambda s: seen.append((safe_mode(s.desk.ledger), s.desk.gate.pauses(), [e.body["code"] for e in s.desk.ledger.events("alert")])))
    assert seen[:2] == [None, None] and "three times in ten minutes" in seen[2][0] and "SAFE_MODE" in seen[2][2]
    assert any("three times" in p for p in seen[2][1])


def test_a_pause_of_entries_outlives_the_owner(supervised):
    seen = []
    supervised(lambda s: s.on_pause("ann", {"reason": "earnings"}))
    supervised(lambda s: seen.append(s.desk.gate.pauses()))
    supervised(lambda s: s.on_resume("ann", {"reason": "over"}))
    supervised(lambda s: seen.append(s.desk.gate.pauses()))
    assert any("ann paused entries: earnings" in p for p in seen[0]) and not any("paused" in p for p in seen[1])


def test_F76_a_kill_latches_in_the_callers_thread_is_told_at_once_and_ends_with_its_page(supervised):
    import threading

    def press(s):
        told = []
        s.inbox.post = lambda *ignored: None  # the desk's thread is busy
        thread = threading.Thread(target=lambda: told.append(s.on_kill("ann", {"reason": "the data is wrong"})))
        thread.start()
        thread.join()
        kill_id = told[0]["kill_id"]
        assert told[0]["latched"] and s.desk.kill.pressed == kill_id and s.desk.kill.halted() and s.desk.kill.sentinel.exists()
        assert s.desk.ledger.last("kill") is None
        s.turn()  # the loop finds it, and goes on with it until the account is empty
        assert s.desk.kill.is_flat and s.desk.ledger.last("kill").body["kill_id"] == kill_id
        assert s.desk.ledger.events("kill").__next__().body["who"] == "ann"
        told_of = [e.body for e in s.desk.ledger.events("alert") if e.body["code"] == "KILL_SWITCH"]
        assert [(a["subject"], a["text"]) for a in told_of] == [(kill_id, "the data is wrong")]
        s.write_incidents()
        s.write_incidents()
        assert [name for name, *_ in s.asked] == ["incident", "incident"][: len(s.asked)] and len(s.asked) == 1
        s.work_through()
        assert list((s.reports / "runs").rglob("incident.html")) and (s.reports / "incidents" / f"{kill_id}.json").exists()
        s.on_deactivate("ann", {"code": f"CONFIRM-{s.clock.now():%Y%m%d}"})
        assert s.on_resume("ann", {"why": "the drill is over"})["needs_resume"] is False and not s.desk.kill.halted()
        assert s.desk.ledger.last("kill").body["why"] == "the drill is over"

    supervised(press)


def test_an_alert_is_acknowledged_by_its_number(supervised):
    def acknowledge(s):
        s.desk.alerts.alert("BOOKS_DIFFER", "XAAB", "one share more")
        number = next(r["id"] for r in s.desk.alerts.rows() if r["code"] == "BOOKS_DIFFER")
        with pytest.raises(ControlRefused):
            s.on_acknowledge("ann", {"id": "first"})
        with pytest.raises(InputError, match="no alert has that number"):
            s.on_acknowledge("ann", {"id": 10**6})
        assert s.on_acknowledge("ann", {"id": str(number)}) == {"id": number}
        assert next(r for r in s.desk.alerts.rows() if r["id"] == number)["acknowledged"]["who"] == "ann"

    supervised(acknowledge)


def test_looks_are_seen_by_the_dashboard_and_a_heartbeat_is_one(supervised):
    def look(s):
        s.look()
        assert s.desk.dashboard.beats.last is not None and s.desk.dashboard.seen["api_connection"] == s.clock.now()
        assert [x.ok for x in s.looks if x.name in ("api_connection", "state_persistence")] == [True, True] and "state_persistence" in s.desk.dashboard.seen

    supervised(look)


def test_F62_what_was_due_while_the_machine_slept_is_not_done_late():
    plan = day_plan(date(2025, 7, 3), load_settings())
    woke = plan[0].at + timedelta(hours=6)
    assert [j.name for j in due_jobs(plan, woke, {"market_open", "intraday_check"})][0] == "market_close"
    assert "rebalance" in [j.name for j in missed_jobs(plan, woke, {"market_open", "intraday_check"})]


def test_F51_a_half_day_moves_every_job(tmp_path):
    whole, half = ({j.name: j.at.strftime("%H:%M") for j in day_plan(d, load_settings())} for d in (date(2026, 11, 25), date(2026, 11, 27)))
    assert (whole["rebalance"], half["rebalance"]) == ("15:30", "12:30") and (whole["market_close"], half["market_close"]) == ("16:01", "13:01")


def test_F50_times_are_new_yorks_on_any_machine():
    code = "from datetime import date; from v23.schedule import day_plan; from v23.settings import load_settings; print([j.at.isoformat() for d in (date(2026, 3, 9), date(2026, 11, 2)) for j in day_plan(d, load_settings('/nonexistent', environ={}))])"
    told = {subprocess.run([sys.executable, "-c", code], env=os.environ | {"TZ": zone}, capture_output=True, text=True, check=True).stdout for zone in ("UTC", "Asia/Kolkata")}
    assert len(told) == 1 and "09:35:00-04:00" in told.copy().pop() and "09:35:00-05:00" in told.pop()


def test_F64_logs_end(tmp_path):
    handlers = log_to(tmp_path, max_bytes=10_000, kept=3)
    for n in range(5000):
        logging.getLogger("v23.test").info("line %s", n)
    stop_logging(handlers)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 2 * 4 * 11_000 and len(list(tmp_path.iterdir())) == 8


def test_F61_F87_a_stop_in_the_middle_of_a_rebalance_ends_in_seconds_the_next_start_finishes_it_and_a_rerun_says_the_same(tmp_path, runner):
    state, reports = tmp_path / "state", tmp_path / "reports"
    command = [sys.executable, "-m", "v23.cli", "supervise", "--speed", "0", "--sessions", "1", "--start", "2025-07-03", "--state", str(state), "--reports", str(reports)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until, doing = time.monotonic() + 240, ""
    while doing != "rebalance" and time.monotonic() < until:
        try:
            doing = ask(state, "heartbeat", timeout=5)["doing"]
        except NoOwner:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    assert doing == "rebalance"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0 and time.monotonic() - began < 12  # five seconds, and what a busy machine takes
    with pytest.raises(NoOwner):
        ask(state, "status")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=400).returncode == 0
    done = [e["job"] for e in read_history(reports, "rebalance") if e["status"] == "done"]
    assert done == ["rebalance"] and read_pulse(state)[0]["stopped"] == "1 sessions are over"
    assert datetime.fromisoformat(read_pulse(state)[0]["now"]).date() == date(2025, 7, 3)
    for name in ("market_open", "rebalance", "market_close", "validation"):  # done once; done again they say the same, to the byte
        result = reports / "runs" / "2025-07-03" / f"{name}.result.json"
        said, ran = result.read_bytes(), len(read_history(reports, name))
        run_job(name, {"state": str(state), "reports": str(reports)}, reports, date(2025, 7, 3), runner=runner)
        assert result.read_bytes() == said and len(read_history(reports, name)) == ran + 1, name
