"PBO, SPA and the deflated Sharpe ratio against independent implementations and against markets whose truth is known."

from datetime import date
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from v23.errors import InputError
from v23.integrity import Verdict
from v23.overfitting import NO_LEDGER, cscv, deflation, luck, overfitting, spa, stationary_weights, superiority, validated
from v23.trials import Trial, Trials
from v23.validation.sharpe import cscv_splits, sharpe_ratio


def trials_of(matrix):
    days = [d.date() for d in pd.bdate_range(date(2020, 1, 3), periods=len(matrix))]
    made = [Trial("rule", {"n": n}, {}, "p", days[0], days[-1], {"sharpe": sharpe_ratio(x, 252)}, returns=x) for n, x in enumerate(matrix.T)]
    return Trials(made, {"p": days})


def test_sixteen_blocks_are_12870_splits_and_every_one_is_used(rng):
    found = cscv(rng.normal(0, 0.01, (320, 6)))
    assert len(found.logits) == cscv_splits(16) == 12870


@pytest.mark.parametrize(("rows", "trials", "blocks"), [(203, 9, 8), (97, 3, 6), (400, 50, 10)])
def test_pbo_is_what_the_definition_gives_split_by_split(rows, trials, blocks, rng):
    matrix = rng.standard_t(4, (rows, trials)) * 0.01 + 0.0003
    size = rows // blocks
    block = np.arange(rows - size * blocks, rows).reshape(blocks, size)
    chosen, outside, lower = [], [], []
    for half in combinations(range(blocks), blocks // 2):
        inside = matrix[block[list(half)].ravel()]
        other = matrix[block[[b for b in range(blocks) if b not in half]].ravel()]
        first, second = (m.mean(axis=0) / m.std(axis=0, ddof=1) for m in (inside, other))
        chosen.append(int(first.argmax()))
        outside.append(second[chosen[-1]])
        lower.append((np.sort(second).tolist().index(second[chosen[-1]]) + 1) / (trials + 1) <= 0.5)
    found = cscv(matrix, blocks)
    assert found.chosen.tolist() == chosen
    assert found.outside == pytest.approx(outside, abs=1e-12)
    assert found.pbo == pytest.approx(np.mean(lower))


def test_noise_is_a_coin_flip_and_an_edge_is_found():
    noise = [np.random.default_rng(n).normal(0, 0.01, (500, 30)) for n in range(20)]
    assert 0.35 < np.mean([cscv(m, 10).pbo for m in noise]) < 0.65
    edge = noise[0].copy()
    edge[:, 4] += 0.003
    assert cscv(edge).pbo < 0.01 and overfitting(trials_of(edge)).verdict is Verdict.HOLDS


def test_neither_pbo_nor_dsr_notices_somebody_who_knows_tomorrow(rng):
    oracle = rng.normal(0, 0.01, (500, 20))
    oracle[:, 7] = np.abs(oracle[:, 7])
    tried = trials_of(oracle)
    assert cscv(oracle).pbo == 0 and deflation(oracle[:, 7], tried)["dsr"] > 0.99


def test_spa_agrees_with_the_arch_package(rng):
    arch = pytest.importorskip("arch.bootstrap", reason="arch is not installed")
    for shift in (0.0, 0.0012):
        matrix = rng.normal(0, 0.01, (400, 12))
        matrix[:, 2] += shift
        theirs = arch.SPA(np.zeros(400), -matrix, block_size=5, reps=4000, bootstrap="stationary", seed=np.random.default_rng(1))
        theirs.compute()
        ours = spa(matrix, times=4000, studentize=False)  # Its max is over plain means
        assert [ours.lower, ours.consistent, ours.upper] == pytest.approx(theirs.pvalues.to_numpy().tolist(), abs=0.035)


def test_the_stationary_bootstrap_draws_blocks_of_the_right_mean_length(rng):
    weights = stationary_weights(rng, 200, 5.0, 400)
    assert (weights.sum(axis=1) == 200).all() and weights.mean(axis=0) == pytest.approx(np.ones(200), abs=0.25)


def test_the_best_of_many_worthless_trials_is_not_validated():
    hits = 0
    for seed in range(20):
        matrix = np.random.default_rng(seed).normal(0, 0.01, (504, 60))
        tried = trials_of(matrix)
        best = tried.best()
        told = validated(pd.Series(best.returns), tried, best.key)
        hits += bool(told["validated"])
        assert luck(best.returns)["psr"] > 0.9  # Looks good, taken alone
    assert hits == 0


def test_without_a_record_of_trials_nothing_is_validated(rng):
    superb = pd.Series(rng.normal(0.003, 0.01, 1000))
    assert luck(superb).verdict is Verdict.HOLDS
    for trials in (None, Trials([], {})):
        told = validated(superb, trials)
        assert told.verdict is Verdict.UNKNOWN and told["validated"] is False and told.sentence == NO_LEDGER
        assert deflation(superb, trials).verdict is overfitting(None).verdict is superiority(trials, {}).verdict is Verdict.UNKNOWN
    other = trials_of(rng.normal(0, 0.01, (300, 4)))
    assert "was not recorded" in validated(superb, other, "f" * 64).sentence


def test_more_trials_deflate_more(rng):
    matrix = rng.normal(0.0004, 0.01, (600, 64))
    ours = matrix[:, 0]
    dsr = [deflation(ours, trials_of(matrix[:, :n]))["dsr"] for n in (4, 16, 64)]
    assert dsr[0] > dsr[1] > dsr[2]


@pytest.mark.parametrize(("matrix", "blocks", "said"), [(np.ones((100, 1)), 4, "at least 2 trials"), (np.full((100, 3), np.nan), 4, "not finite"), (np.ones((100, 3)), 5, "5 blocks"), (np.ones((20, 3)), 16, "16 blocks of 20")])
def test_what_cannot_be_split_is_refused_in_one_line(matrix, blocks, said):
    with pytest.raises(InputError, match=said) as e:
        cscv(matrix, blocks)
    assert "\n" not in str(e.value)
