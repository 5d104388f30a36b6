"Sweeps are counted once, survive a kill, and do not depend on who did the work."

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from broken_panel import broken_panel

from v23.adapters.trial_ledger import TrialLedger, read_trials
from v23.backtest import ACCOUNTINGS, FILLS, Terms
from v23.backtest_result import backtest_strategy
from v23.domain import Signal
from v23.errors import InputError, StateError, V23Error
from v23.example_strategies import LowVolatility
from v23.search import Conditions, Evaluator, RandomSample
from v23.settings import StrategySettings
from v23.sweep import run_sweep
from v23.trials import Trial
from v23.v21_signals import V21
from v23.walk_forward import Study

CLOCK = SimpleNamespace(now=lambda: datetime(2026, 3, 10, 14, 0, tzinfo=UTC))
SPACE = {"rsi_ceiling": [30.0, 40.0], "positions": [5, 12, 30], "holding_sessions": [3, 5], "volatility_floor": [0.2, 0.3], "phase": [0, 2]}


@pytest.fixture(scope="module")
def panel():
    return broken_panel()


@pytest.fixture(params=["numpy", "numba"])
def kernel(request):
    if request.param == "numba":
        pytest.importorskip("numba", reason="the extra v23[fast] is not installed")
    return request.param


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_every_configuration_of_a_sweep_is_its_own_backtest(panel, kernel, fill, accounting, tmp_path):
    terms = Terms(12.0, 0.004, 0.03, -0.4) if accounting == "drift" else None
    how = Conditions(fill, accounting, "legacy_mean" if fill == "close" else "pit", terms=terms, own_cost=True, start=panel.sessions[40])
    found = run_sweep(panel, RandomSample(SPACE | {"cost_bps": (0.0, 30.0), "minimum_candidates": [1, 5]}, 24, 5), how=how, ledger=tmp_path / "t.jsonl", kernel=kernel, clock=CLOCK)
    for trial in found.trials:
        s = StrategySettings(**trial.parameters)
        alone = backtest_strategy(panel, V21(s), replace(terms or Terms(), cost_bps=s.cost_bps), fill, accounting, how.universe, s.phase, start=how.start)
        np.testing.assert_allclose(trial.returns, alone.returns, rtol=0, atol=1e-12)
        for name, value in alone.figures.items():
            assert trial.figures[name] == pytest.approx(value, abs=1e-9), name
    assert len({t.figures["cagr"] for t in found.trials}) > 20


def test_tranches_and_a_limit_on_volume_are_swept_too(panel, kernel, tmp_path):
    slow = Terms(capacity=1e-4, capital=1e8)
    for n, how in enumerate((Conditions(tranches=True, terms=Terms(cash_rate=0.03), own_cost=True), Conditions(terms=slow, own_cost=True), Conditions(tranches=True, terms=slow, own_cost=True))):
        found = run_sweep(panel, {"positions": [5, 30], "cost_bps": [0.0, 25.0]}, how=how, ledger=tmp_path / f"{n}.jsonl", kernel=kernel, workers=1 + n % 2, clock=CLOCK)
        for trial in found.trials:
            s = StrategySettings(**trial.parameters)
            alone = backtest_strategy(panel, V21(s), replace(how.terms, cost_bps=s.cost_bps), tranches=how.tranches)
            np.testing.assert_allclose(trial.returns, alone.returns, rtol=0, atol=1e-12)
        assert len({t.figures["cagr"] for t in found.trials}) == 4


def test_the_company_a_configuration_keeps_does_not_change_a_bit_of_it(panel, kernel, tmp_path):
    whole = run_sweep(panel, SPACE, ledger=tmp_path / "whole.jsonl", kernel=kernel, clock=CLOCK)
    for n in (0, 17, 47):
        lone = run_sweep(panel, {k: [v] for k, v in whole.configurations[n].items()}, ledger=tmp_path / f"{n}.jsonl", kernel=kernel, clock=CLOCK)
        assert np.array_equal(lone.trials.trials[0].returns, whole.trials.trials[n].returns)
        assert lone.trials.trials[0].figures == whole.trials.trials[n].figures


def test_pools_of_any_size_find_the_same_to_the_last_bit(panel, kernel, tmp_path):
    runs = [run_sweep(panel, SPACE, ledger=tmp_path / f"{w}.jsonl", workers=w, kernel=kernel, clock=CLOCK) for w in (1, 2, 3)]
    for other in runs[1:]:
        assert other.frame.equals(runs[0].frame) and other.trials.returns().equals(runs[0].trials.returns())
    texts = [(tmp_path / f"{w}.jsonl").read_bytes() for w in (1, 2, 3)]
    assert texts[0] == texts[1] == texts[2]


SCRIPT = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {tests!r})
from broken_panel import broken_panel
from v23.sweep import run_sweep
import v23.search
v23.search.CHUNK = 8
clock = SimpleNamespace(now=lambda: datetime(2026, 3, 10, 14, 0, tzinfo=timezone.utc))
space = {{"rsi_ceiling": [25.0 + n / 2 for n in range(40)], "positions": [10, 20], "volatility_floor": [0.2, 0.3]}}
print("begin", flush=True)
found = run_sweep(broken_panel(), space, ledger=Path(sys.argv[1]), kernel="numpy", clock=clock, workers=int(sys.argv[2]))
print(found.evaluated, flush=True)
found.frame.to_csv(sys.argv[3], index=False, float_format="%.17g")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_scores_that_are_shared_change_no_bit_of_any_configuration(panel, workers, tmp_path, monkeypatch):
    grid, asked, own = {"positions": [3, 6], "holding_sessions": [5, 7], "window": [20, 40]}, [], LowVolatility.scores

    def counted(self, panel, as_of):
        asked.append(as_of)
        return own(self, panel, as_of)

    monkeypatch.setattr(LowVolatility, "scores", counted)
    shared = run_sweep(panel, grid, LowVolatility, ledger=tmp_path / "shared.jsonl", workers=workers)
    once = len(asked)
    monkeypatch.setattr("v23.search.scoring_of", lambda factory: None)
    alone = run_sweep(panel, grid, LowVolatility, ledger=tmp_path / "alone.jsonl")
    assert shared.frame.equals(alone.frame) and shared.trials.returns().equals(alone.trials.returns())
    assert workers > 1 or 0 < once < 0.7 * (len(asked) - once)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_killed_half_way_goes_on_and_counts_nothing_twice(workers, tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__)))
    ledger = tmp_path / "trials.jsonl"

    def start(path, out):
        return subprocess.Popen([sys.executable, str(script), str(path), str(workers), str(out)], stdout=subprocess.PIPE, text=True, start_new_session=True)

    counts = []
    for _ in range(2):  # Killed twice, at different places
        process, before, limit = start(ledger, tmp_path / "never.csv"), ledger.stat().st_size if ledger.exists() else 0, time.monotonic() + 100
        while (not ledger.exists() or ledger.stat().st_size <= before + 3000) and time.monotonic() < limit:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        counts.append(read_trials(ledger).n)
    assert 0 < counts[0] < counts[1] < 160 and not (tmp_path / "never.csv").exists()
    with ledger.open("ab") as f:
        f.write(b'{"hash":"torn')  # What a kill in the middle of a write leaves
    done = start(ledger, tmp_path / "resumed.csv")
    assert done.communicate(timeout=200)[0].split()[-1] == str(160 - counts[1])  # Only the rest was computed
    found = read_trials(ledger)
    keys = re.findall(r'"key":"([0-9a-f]{64})"', ledger.read_text())
    assert found.n == 160 == len(keys) == len(set(keys))
    straight = start(tmp_path / "straight.jsonl", tmp_path / "straight.csv")
    assert straight.communicate(timeout=200)[0].split()[-1] == "160"
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()


def test_two_processes_may_append_to_one_ledger_at_once(tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__)))
    both = [subprocess.Popen([sys.executable, str(script), str(tmp_path / "t.jsonl"), "1", str(tmp_path / f"{n}.csv")], stdout=subprocess.PIPE, text=True) for n in range(2)]
    for process in both:
        process.communicate(timeout=200)
        assert process.returncode == 0
    assert read_trials(tmp_path / "t.jsonl").n == 160
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


class Sized(LowVolatility):
    "A strategy with parameters that are no numbers."

    name, scoring = "sized", ()

    def __init__(self, positions: int = 5, windows: tuple[int, ...] = (21, 42), since: date = date(2024, 1, 2)):
        super().__init__(positions=positions)


def test_a_ledger_knows_what_it_recorded_as_its_file_says_it_whatever_the_parameters_are(panel, tmp_path):
    ours = TrialLedger(tmp_path / "t.jsonl", CLOCK)
    given = [5, 6]
    run_sweep(panel, {"positions": [5], "windows": [(21, 42), given]}, Sized, ledger=ours, clock=CLOCK)
    given.append(7)  # The caller's own afterwards
    read = TrialLedger(tmp_path / "t.jsonl", CLOCK)
    assert [a.__dict__ for a in ours.found.values()] == [b.__dict__ for b in read.found.values()]
    assert [t.parameters["windows"] for t in ours.found.values()] == [[21, 42], [5, 6]] and ours.trials().frame.equals(read.trials().frame)


@pytest.mark.parametrize(
    ("how", "space", "said"),
    [
        ({"phase": 3}, {"phase": [0, 1]}, "phase is 0 in a configuration and all are to run at phase 3"),
        ({"tranches": True}, {"phase": [0, 1]}, "tranches use every phase"),
        ({"tranches": True, "phase": 3}, {"positions": [5]}, "tranches use every phase, leave it at 0"),
        ({"terms": Terms(25.0)}, {"cost_bps": [0.0, 25.0]}, "cost_bps is 0 and the terms say 25"),
    ],
    ids=["two phases", "a phase of tranches", "tranches at a phase", "two costs"],
)
def test_what_would_be_ignored_is_refused_before_anything_runs(how, space, said, panel, tmp_path):
    with pytest.raises(InputError, match=said):
        run_sweep(panel, space, how=Conditions(**how), ledger=tmp_path / "t.jsonl", clock=CLOCK)
    with pytest.raises(InputError, match="cost_bps is 0 and the terms say 100"):
        _ = Study(panel, V21, {"cost_bps": [0.0, 50.0]}, terms=Terms(100.0)).fixed
    assert not list(tmp_path.iterdir())


def test_what_is_finished_is_recorded_when_a_later_part_fails(panel, tmp_path, monkeypatch):
    pytest.importorskip("numba", reason="the extra v23[fast] is not installed")
    from v23 import fast_backtest

    find = fast_backtest.find_candidates
    monkeypatch.setattr(fast_backtest, "find_candidates", lambda p, s, u, phase, first=0: find(p, s, u, phase, first) if phase < 4 else (_ for _ in ()).throw(MemoryError("no room")))
    monkeypatch.setattr("v23.sweep.threads", lambda: 2)
    with pytest.raises(MemoryError):
        run_sweep(panel, {"phase": [0, 1, 2, 3, 4], "positions": [5, 9]}, ledger=tmp_path / "t.jsonl", kernel="numba", clock=CLOCK)
    assert read_trials(tmp_path / "t.jsonl").n == 8


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_ledger_knows_after_appending_is_what_its_file_says(panel, keep, tmp_path):
    ours = TrialLedger(tmp_path / "t.jsonl", CLOCK)
    for space in ({"positions": [5, 12]}, {"positions": [12, 30], "rsi_ceiling": [30.0]}, {"positions": [5, 30]}):
        run_sweep(panel, space, ledger=ours, keep_returns=keep, clock=CLOCK)
        read = TrialLedger(tmp_path / "t.jsonl", CLOCK)
        assert (ours.seq, ours.last, ours.size, ours.sessions) == (read.seq, read.last, read.size, read.sessions)
        assert list(ours.found) == list(read.found)
        for a, b in zip(ours.found.values(), read.found.values(), strict=True):
            assert (a.__dict__ | {"key": a.key}) == (b.__dict__ | {"key": b.key})
            assert (ours.load(a) is None) is not keep
    assert ours.catch_up() == 0 and ours.seq == 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("distributed", reason="the extra v23[dask] is not installed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1", local_directory=str(tmp_path_factory.mktemp("dask"))) as c:
        yield c


def test_dask_finds_the_same_to_the_last_bit(cluster, panel, kernel, tmp_path):
    here = run_sweep(panel, SPACE, ledger=tmp_path / "here.jsonl", kernel=kernel, clock=CLOCK)
    there = run_sweep(panel, SPACE, ledger=tmp_path / "there.jsonl", kernel=kernel, clock=CLOCK, scheduler=cluster.scheduler_address)
    assert there.frame.equals(here.frame) and there.trials.returns().equals(here.trials.returns())
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "there.jsonl").read_bytes()


def test_a_scheduler_that_is_gone_or_has_no_workers_is_one_line(panel, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra v23[dask] is not installed")
    import v23.sweep
    from distributed import LocalCluster

    monkeypatch.setattr(v23.sweep._on_dask, "__defaults__", (1.0,))
    with pytest.raises(InputError, match=r"the Dask scheduler tcp://127.0.0.1:9 does not answer"):
        run_sweep(panel, SPACE, ledger=tmp_path / "t.jsonl", clock=CLOCK, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match="nonsense"):
        run_sweep(panel, SPACE, ledger=tmp_path / "t.jsonl", clock=CLOCK, scheduler="nonsense://x")
    with LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty, pytest.raises(InputError, match="has no workers"):
        run_sweep(panel, SPACE, ledger=tmp_path / "t.jsonl", clock=CLOCK, scheduler=empty.scheduler_address)
    assert read_trials(tmp_path / "t.jsonl").n == 0


class Slow:
    "A strategy that takes its time."

    name, holding_sessions, warmup_sessions = "slow", 400, 1

    def __init__(self, number: int = 1):
        self.number = number

    def signals(self, panel, as_of):
        time.sleep(0.1)
        return (Signal(panel.symbols[60], as_of, 1, 1.0),)


def test_a_scheduler_that_dies_half_way_is_one_line_and_what_was_done_stays(panel, tmp_path):
    pytest.importorskip("distributed", reason="the extra v23[dask] is not installed")
    port = "127.0.0.1:18786"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": tmp_path, "start_new_session": True}
    processes = [subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", port, "--no-dashboard"], **quiet), subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{port}", "--nworkers", "1", "--nthreads", "1", "--no-dashboard"], **quiet)]
    try:
        wait_for_worker(f"tcp://{port}")
        ledger = TrialLedger(tmp_path / "t.jsonl", CLOCK)
        append = ledger.append

        def kill_after_three(trials, panel):
            new = append(trials, panel)
            if len(ledger.found) == 3:
                os.killpg(processes[0].pid, signal.SIGKILL)
            return new

        ledger.append = kill_after_three
        with pytest.raises(V23Error, match="went away") as e:
            run_sweep(panel, {"number": list(range(200))}, Slow, ledger=ledger, scheduler=f"tcp://{port}")
        assert len(str(e.value).splitlines()) == 1 and 3 <= read_trials(tmp_path / "t.jsonl").n < 200
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_worker(address):
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)


class Scores:
    "A strategy that gives NaN scores from a day on."

    name, holding_sessions, warmup_sessions = "scores", 5, 1

    def __init__(self, since: int = 100):
        self.since = since

    def signals(self, panel, as_of):
        return (Signal(panel.symbols[60], as_of, 1, float("nan") if len(panel.sessions) > self.since else 1.0),)


def test_a_strategy_with_nan_scores_stops_the_sweep_in_one_line_and_keeps_what_was_done(panel, tmp_path):
    for workers in (1, 2):
        path = tmp_path / f"{workers}.jsonl"
        with pytest.raises(InputError, match=r"scores on 20\d\d-\d\d-\d\d: the score of .* is nan.*since=300") as e:
            run_sweep(panel, {"since": [900, 300, 901]}, Scores, ledger=path, workers=workers, clock=CLOCK)
        assert len(str(e.value).splitlines()) == 1
        assert [t.parameters["since"] for t in read_trials(path)] == [900]


def test_a_worker_that_dies_is_one_line(panel, tmp_path):
    with pytest.raises(V23Error, match="ended suddenly"):
        run_sweep(panel, {"since": [1, 2]}, Deadly, ledger=tmp_path / "t.jsonl", workers=2, clock=CLOCK)


class Deadly(Scores):
    def signals(self, panel, as_of):
        os.kill(os.getpid(), signal.SIGKILL)


def test_an_edited_strategy_is_another_trial_and_an_unchanged_one_is_not(panel, tmp_path):
    def sweep(source):
        space = {"Signal": Signal, "__name__": "notebook"}
        exec(source, space)
        return run_sweep(panel, {"column": [60, 61]}, space["Mine"], ledger=tmp_path / "t.jsonl", clock=CLOCK)

    source = "class Mine:\n name, holding_sessions, warmup_sessions = 'mine', 5, 1\n def __init__(self, column=60): self.column = column\n def signals(self, panel, as_of): return (Signal(panel.symbols[self.column], as_of, 1, 1.0),)\n"
    assert sweep(source).evaluated == 2
    assert sweep(source).evaluated == 0
    again = sweep(source.replace("self.column]", "self.column + 1]"))
    assert (again.evaluated, again.everything.n, again.everything.n_configurations) == (2, 4, 2)


def test_other_bars_costs_and_windows_are_other_trials(panel, tmp_path):
    for n, (bars, how) in enumerate(((panel, Conditions()), (panel, Conditions(terms=Terms(3.0))), (panel, Conditions(start=date(2024, 6, 3))), (panel.upto(panel.sessions[400]), Conditions())), 1):
        run_sweep(bars, {"positions": [10]}, how=how, ledger=tmp_path / "t.jsonl", clock=CLOCK)
        assert read_trials(tmp_path / "t.jsonl").n == n
    assert run_sweep(panel, {"positions": [10]}, how=Conditions(start=panel.sessions[0]), ledger=tmp_path / "t.jsonl", clock=CLOCK).evaluated == 0


def test_one_name_twice_and_a_default_spelled_out_count_once(panel, tmp_path):
    run_sweep(panel, {"positions": [30]}, ledger=tmp_path / "t.jsonl", clock=CLOCK)
    found = run_sweep(panel, {"positions": [30], "rsi_ceiling": [35, 35.5], "holding_sessions": [5]}, ledger=tmp_path / "t.jsonl", clock=CLOCK)
    assert (found.evaluated, found.everything.n) == (1, 2)


def test_every_edited_byte_of_a_ledger_is_noticed(panel, tmp_path, rng):
    path = tmp_path / "t.jsonl"
    run_sweep(panel, {"positions": [10, 20, 30]}, ledger=path, clock=CLOCK)
    whole = path.read_bytes()
    for at in rng.choice(len(whole) - 1, 150, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[at] = damaged[at] ^ 1
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=r"t\.jsonl"):
            read_trials(path)
    path.write_bytes(whole)
    assert read_trials(path).n == 3
    path.unlink()
    with pytest.raises(StateError, match="is missing"):
        TrialLedger(path, CLOCK)


def test_a_removed_trial_is_noticed_wherever_it_was(panel, tmp_path):
    path = tmp_path / "t.jsonl"
    run_sweep(panel, {"positions": [10, 20, 30]}, ledger=path, clock=CLOCK)
    lines = path.read_bytes().splitlines(keepends=True)
    for n in range(len(lines)):
        path.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        with pytest.raises(StateError, match=r"t\.jsonl"):
            read_trials(path)


def test_trials_without_returns_are_kept_as_such_and_computed_again_when_returns_are_wanted(panel, tmp_path):
    lean = run_sweep(panel, {"positions": [10, 20]}, ledger=tmp_path / "t.jsonl", keep_returns=False, clock=CLOCK)
    assert lean.evaluated == 2 and not (tmp_path / "t.returns").exists()
    full = run_sweep(panel, {"positions": [10, 20]}, ledger=tmp_path / "t.jsonl", clock=CLOCK)
    assert full.evaluated == 2 and full.everything.n == 2 and full.trials.returns().shape[1] == 2


@pytest.mark.parametrize(
    ("space", "said"),
    [({"rsi_cieling": [30]}, "did you mean 'rsi_ceiling'"), ({"positions": ["many"]}, "positions is 'many'"), ({"positions": [-3]}, "at least 1"), ({"rsi_ceiling": [float("nan")]}, "rsi_ceiling is nan"),
     ({"holding_sessions": [2], "phase": [3]}, "phase is 3"), ({"positions": 30}, "a list of values"), ({"positions": []}, "no values")],
)  # fmt: skip
def test_what_cannot_be_varied_is_named_before_anything_runs(panel, space, said, tmp_path):
    with pytest.raises(InputError, match=said):
        run_sweep(panel, space, ledger=tmp_path / "t.jsonl", clock=CLOCK)
    assert not list(tmp_path.iterdir())


def test_the_command_line_sweeps_resumes_and_counts(tmp_path):
    def v23(*args):
        return subprocess.run([sys.executable, "-m", "v23.cli", *args], cwd=tmp_path, capture_output=True, text=True, timeout=200)

    first = v23("sweep", "--grid", "positions=10,20", "--grid", "rsi_ceiling=30,40", "--json", "--out", "found")
    facts = json.loads(first.stdout)
    assert (facts["configurations"], facts["evaluated"], facts["trials_on_these_bars"]) == (4, 4, 4) and facts["synthetic"]
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == ["parallel.png", "plateau.png", "sweep.csv"]
    again = json.loads(v23("sweep", "--grid", "positions=10,20", "--grid", "rsi_ceiling=30,40", "--json").stdout)
    assert (again["evaluated"], again["results"]) == (0, facts["results"])
    assert json.loads(v23("trials", "--json").stdout)["trials"] == 4
    for args, code, said in (
        (("sweep", "--grid", "rsi_cieling=30"), 2, "did you mean 'rsi_ceiling'"), (("sweep", "--grid", "positions"), 2, "name=value,value is expected"),
        (("sweep", "--range", "positions=1:9"), 2, "--random"), (("sweep", "--strategy", "mine:Rule"), 2, "mine:Rule"), (("trials", "--by", "luck"), 2, "luck"),
    ):  # fmt: skip
        done = v23(*args)
        assert done.returncode == code and said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, (args, done.stderr)
    damaged = (tmp_path / "state/research/trials.jsonl").read_text().replace('"positions":10', '"positions":11', 1)
    (tmp_path / "state/research/trials.jsonl").write_text(damaged)
    done = v23("trials")
    assert done.returncode == 1 and "line 2 was edited" in done.stderr


def test_the_record_of_a_trial_says_everything_that_decided_it(panel):
    job = Evaluator(panel, V21, Conditions()).job({})
    assert set(job.parameters) == set(vars(StrategySettings()))
    assert set(vars(Trial("", {}, {}, "", date(2024, 1, 2), date(2024, 1, 2), {}))) >= {"strategy", "code", "parameters", "arguments", "panel", "first", "last"}
