"Processes that are ended with SIGKILL at every named point and at random, over real sockets and a real disk."

import subprocess
import sys

import pytest
from crash_sweep import POINTS, sweep

from v23.adapters.snapshots import CRASH_POINTS


@pytest.mark.timeout(900)
def test_F53_twenty_two_kills_leave_nothing_sent_that_was_not_written_down(tmp_path, v23_seed):
    result = sweep(2 * len(POINTS), v23_seed, tmp_path)
    assert result.wrong == []
    assert result.kills.keys() == set(POINTS) and result.orders > 20


@pytest.mark.parametrize("wanted", ["sending", "nowhere:1", "sending:0"])
def test_a_point_that_is_not_one_is_refused(wanted, tmp_path):
    done = subprocess.run([sys.executable, "-c", "import v23.adapters.snapshots"], env={"V23_CRASH_AT": wanted, "PATH": "/usr/bin"}, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "V23_CRASH_AT" in done.stderr


def test_a_process_ends_where_the_environment_says(tmp_path):
    code = "import sys; from pathlib import Path; from v23.adapters.snapshots import write_atomic; [write_atomic(Path(sys.argv[1]), str(n)) for n in range(5)]"
    target = tmp_path / "file"
    for point, kept in (("rename:2", "1"), ("snapshot:2", "0"), ("any:1", "0")):
        target.write_text("0")
        done = subprocess.run([sys.executable, "-c", code, str(target)], env={"V23_CRASH_AT": point, "PATH": "/usr/bin"}, capture_output=True, timeout=60)
        assert done.returncode == -9 and target.read_text() == kept
    assert subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, timeout=60).returncode == 0 and target.read_text() == "4"


def test_every_point_is_passed_somewhere():
    from pathlib import Path

    import v23

    text = "".join(p.read_text() for p in Path(v23.__file__).parent.rglob("*.py"))
    assert [n for n in CRASH_POINTS if f'crash_point("{n}")' not in text] == []


@pytest.mark.timeout(300)
def test_F61_told_to_end_in_the_middle_of_a_day_a_process_ends_at_once_and_the_next_goes_on(tmp_path, v23_seed):
    import signal

    from crash_sweep import Sweeper

    sweeper = Sweeper(tmp_path, v23_seed)
    with sweeper.server:
        try:
            for requests in (12, 20, 30):
                code = sweeper.live("trade", "", requests, by=signal.SIGTERM)
                assert code in (0, -signal.SIGTERM) and sweeper.ended_after < 5.0
                sweeper.look("SIGTERM")
            sweeper.settle()
        finally:
            sweeper.exchange.close()
    assert [w for w in sweeper.result.wrong if "ended with -15" not in w] == [] and sweeper.result.orders > 3
