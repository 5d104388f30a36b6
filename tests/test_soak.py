"Eighteen hundred seeded sessions of the order path under faults, crashes and kills, and what proves that they prove something."

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import order_soak
import pytest
from order_harness import Outcome, Storm, World, run_seed
from order_soak import AT_LEAST, MUST_BE_ZERO, REACHABLE, STATES, UNREACHABLE, failures, seeds_for, soak, summed

SCRIPT = Path(__file__).parent.parent / "scripts" / "soak"


@pytest.mark.timeout(1200)
def test_many_sessions_under_trouble_lose_double_and_break_nothing(v23_seed):
    report = soak(1_800, v23_seed)
    assert failures(report) == [], report["violations"]
    assert report["sessions"] >= 1_800 and report["faults_injected"] > 10_000 and report["crashes"] > 500 and report["kills"] > 100
    assert {name: report[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)


def test_the_same_seed_gives_the_same_history_on_any_number_of_workers(v23_seed):
    first, again, other = soak(24, v23_seed, workers=1), soak(24, v23_seed, workers=2), soak(24, v23_seed + 1, workers=2)
    assert first == again
    assert first["chain"] != other["chain"]


def test_every_pair_of_fault_and_state_is_asked_for_or_said_to_be_unreachable():
    pairs = {(fault, state) for fault, states in REACHABLE.items() for state in states}
    assert len(pairs) > 200 and {s for _, s in pairs} == set(STATES)
    assert {f for f, states in REACHABLE.items() if set(states) != set(STATES)} == set(UNREACHABLE) - {"any order fault"}
    assert all(len(why) > 10 for why in UNREACHABLE.values())


def calm(**counts) -> Outcome:
    return Outcome(1, 1_000, 5, 0, 0, 9, Counter(counts), Counter(), [], "chain", Counter())


def test_a_run_in_which_too_little_went_wrong_fails():
    report = summed([calm()], 7)
    assert report["coverage_judged"] and len(report["thin_pairs"]) > 200
    assert all(line.startswith("vacuous") for line in failures(report))
    full = calm()
    full.pairs.update({(f, s): AT_LEAST for f, states in REACHABLE.items() for s in states})
    full.points.update(dict.fromkeys(order_soak.CRASH_POINTS, AT_LEAST))
    assert failures(summed([full], 7)) == []


@pytest.mark.parametrize("name", MUST_BE_ZERO)
def test_one_violation_fails_a_run(name):
    short = calm(**{name: 1})
    short.sessions = 10
    assert failures(summed([short], 7)) == [f"{name}: 1"]


def test_the_command_prints_one_document_and_judges(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--sessions", "6", "--seed", "3", "--workers", "2", "--json"], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["sessions"] >= 6 and report["coverage_judged"] is False
    assert {"sessions", "faults_injected", "crashes", *MUST_BE_ZERO} <= report.keys()
    assert subprocess.run([sys.executable, SCRIPT, "--sessions", "0"], capture_output=True, timeout=60).returncode == 2


def test_seeds_of_different_runs_are_different():
    assert not set(seeds_for(2_000, 1)) & set(seeds_for(2_000, 2))


def test_a_calm_world_trades_and_differs_in_nothing(tmp_path):
    world = World(5, tmp_path, Storm())
    try:
        world.trade_day()
        world.trade_day()
        world.settle()
        assert world.verdict() == {} and len(world.wire.posts) > 5 and world.wire.methods["PATCH"] == 0
    finally:
        world.close()


def test_the_onlooker_sees_what_the_desk_does_not(tmp_path):
    "Planted: an order past the ledger, a fill the ledger lost, one it doubled, a sale of more than there is."
    from dataclasses import replace
    from decimal import Decimal

    world = World(5, tmp_path, Storm())
    try:
        world.trade_day()
        world.settle()
        fills = world.ledger.fills()
        assert world.verdict() == {}
        world.exchange.handle("POST", "/v2/orders", {}, b'{"symbol":"XAAA","qty":"1","side":"buy","type":"market","time_in_force":"day","client_order_id":"v23-s-0-1"}')
        assert world.verdict()["duplicate_orders"] == 1
        world.ledger._db.execute("DELETE FROM fills WHERE fill_id=?", (fills[0].fill_id,))
        assert world.verdict()["lost_fills"] >= 1
        world.ledger.record("fill", replace(fills[1], fill_id="again", quantity=Decimal(500)))
        assert world.verdict()["double_fills"] >= 1
        world.check_sale("c", fills[1].symbol, Decimal(10**6))
        assert [what for what, _ in world.violations].count("shorts") == 1
    except Exception as e:
        if "disagrees with itself" not in str(e):
            raise
    finally:
        world.close()


def test_a_seed_runs_alone():
    assert run_seed(2_000_003).chain == run_seed(2_000_003).chain
