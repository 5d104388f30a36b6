"Sizing, whatever it is given: limits that hold, de-risking that is never swallowed, an order that does not matter."

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v23.domain import Purpose, Side
from v23.settings import RiskLimits, SizingSettings
from v23.sizing.multipliers import Multiplier, Multipliers, combined_multipliers
from v23.sizing.targets import kept_names, orders_for_targets, size_portfolio, target_quantities

SETTINGS = SizingSettings()
TINY = 1e-12
SECTORS = ("Energy", "Health", "Tech", "Utilities", None)

kellys = st.floats(-0.5, 4.0) | st.just(0.0) | st.just(math.nan)
books = st.lists(st.tuples(kellys, st.sampled_from(SECTORS)), min_size=1, max_size=40)
reduced = st.floats(0.0, 1.0)


def multipliers(drawdown=1.0, regime=1.0, volatility=1.0):
    return Multipliers(*(Multiplier(n, v, None, "") for n, v in (("drawdown", drawdown), ("regime", regime), ("volatility", volatility))))


def sized(book, m, settings=SETTINGS):
    names = [f"N{k:02d}" for k in range(len(book))]
    sectors = {n: s for n, (_, s) in zip(names, book, strict=True) if s}
    return size_portfolio(names, {n: k for n, (k, _) in zip(names, book, strict=True)}, m, sectors, settings)


@given(books, reduced, st.sampled_from(["drawdown", "regime", "volatility"]))
def test_below_one_the_weights_are_proportional_to_the_multipliers(book, m, factor):
    whole, part = sized(book, multipliers()), sized(book, multipliers(**{factor: m}))
    for a, b in zip(whole.names, part.names, strict=True):
        assert b.final == pytest.approx(m * a.final, rel=1e-9, abs=TINY)


@given(books, st.floats(0.0, 2.2), reduced)
def test_a_promotion_shrinks_the_book_by_its_own_factor(book, m, promoted):
    whole, part = sized(book, multipliers(volatility=m)), sized(book, multipliers(volatility=m), replace(SETTINGS, size_multiplier=promoted))
    for a, b in zip(whole.names, part.names, strict=True):
        assert b.final == pytest.approx(promoted * a.final, rel=1e-9, abs=TINY)


@given(books, st.floats(0.0, 2.2))
def test_no_limit_is_exceeded(book, m):
    s = sized(book, multipliers(volatility=m))
    share = min(1.0, m)
    by_sector = {}
    for n in s.names:
        assert 0 <= n.final <= n.document + TINY and n.document <= SETTINGS.max_position
        assert n.final <= SETTINGS.max_position * share + TINY
        by_sector[n.sector] = by_sector.get(n.sector, 0.0) + n.final
    assert s.gross <= SETTINGS.max_gross_exposure * share + TINY
    assert max(by_sector.values()) <= SETTINGS.max_sector * share + TINY


@given(books, st.floats(0.0, 2.2), st.randoms(use_true_random=False))
def test_the_order_of_the_names_does_not_matter(book, m, random):
    names = [f"N{k:02d}" for k in range(len(book))]
    kelly = {n: k for n, (k, _) in zip(names, book, strict=True)}
    sectors = {n: s for n, (_, s) in zip(names, book, strict=True) if s}
    shuffled = random.sample(names, len(names))
    a, b = (size_portfolio(order, kelly, multipliers(volatility=m), sectors, SETTINGS).weights for order in (names, shuffled))
    assert a == b  # to the last bit


def test_sums_do_not_depend_on_their_order_to_the_last_bit(rng):
    names = [f"N{k:02d}" for k in range(30)]
    kelly = dict(zip(names, rng.uniform(0.01, 0.3, 30), strict=True))
    sized_as = {size_portfolio(list(rng.permutation(names)), kelly, multipliers(), {}, SETTINGS).names[0].scale for _ in range(50)}
    assert len(sized_as) == 1 and sized_as.pop() < 1


@given(books, reduced, reduced)
def test_a_larger_multiplier_never_shrinks_a_name_below_one(book, one, other):
    small, large = sorted((one, other))
    for a, b in zip(sized(book, multipliers(regime=small)).names, sized(book, multipliers(regime=large)).names, strict=True):
        assert a.final <= b.final + TINY


@given(st.floats(0.0, 4.0), st.integers(1, 40), st.floats(0.0, 2.2), st.floats(0.0, 2.2))
def test_with_one_kelly_for_all_a_larger_multiplier_never_shrinks_a_name(kelly, count, one, other):
    small, large = sorted((one, other))
    book = [(kelly, SECTORS[k % len(SECTORS)]) for k in range(count)]
    for a, b in zip(sized(book, multipliers(volatility=small)).names, sized(book, multipliers(volatility=large)).names, strict=True):
        assert a.final <= b.final + TINY


@given(books, st.floats(-1.0, 0.5) | st.just(math.nan), st.floats(-5, 90) | st.just(math.nan), st.integers(-1, 5), st.floats(-1, 5) | st.just(math.nan))
def test_every_reading_gives_finite_weights(book, drawdown, vix, age, volatility):
    m = combined_multipliers(drawdown, vix, age, volatility, RiskLimits(), SETTINGS)
    s = sized(book, m)
    assert all(math.isfinite(w) and w >= 0 for w in s.weights.values()) and 0 <= m.product <= 2.2 + TINY
    if not (math.isfinite(drawdown) and -0.15 < drawdown <= 0):
        assert s.gross == 0


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0.01, 5000)), min_size=1, max_size=10), st.floats(1.0, 1e7))
def test_whole_shares_never_cost_more_than_the_weight(rows, equity):
    weights, prices = ({f"N{k}": r[c] for k, r in enumerate(rows)} for c in (0, 1))
    for symbol, quantity in target_quantities(weights, equity, prices).items():
        assert quantity == quantity.to_integral_value() and quantity >= 0
        assert float(quantity) * prices[symbol] <= weights[symbol] * equity * (1 + 1e-9) + 1e-9


quantities = st.dictionaries(st.sampled_from("ABCDEFGH"), st.integers(0, 500).map(Decimal), max_size=8)
prices = st.dictionaries(st.sampled_from("ABCDEFGH"), st.floats(0.5, 500) | st.just(math.nan), max_size=8)


@given(quantities, quantities, prices, st.floats(1e3, 1e6))
def test_orders_move_what_is_held_to_the_targets_sales_first(held, targets, quoted, equity):
    orders = orders_for_targets(held, targets, quoted, equity, 0.002)
    assert [o[1] for o in orders] == sorted((o[1] for o in orders), key=lambda side: side is Side.BUY)
    assert len({o[0] for o in orders}) == len(orders)
    for symbol, side, quantity, purpose in orders:
        wanted, now = targets.get(symbol, Decimal(0)), held.get(symbol, Decimal(0))
        assert quantity > 0 and now + side.sign * quantity == wanted
        assert purpose is (Purpose.ENTRY if side is Side.BUY else Purpose.EXIT)
    full_exits = {s for s, q in held.items() if q > 0 and not targets.get(s)}
    assert full_exits <= {o[0] for o in orders}  # priced or not, small or not


def test_a_small_change_is_not_traded_and_a_small_exit_is():
    held, quoted = {"AAA": Decimal(10), "BBB": Decimal(1), "CCC": Decimal(10)}, {"AAA": 10.0, "BBB": 10.0, "CCC": 10.0}
    targets = {"AAA": Decimal(28), "BBB": Decimal(0), "CCC": Decimal(30)}  # the buffer is 200 dollars
    assert orders_for_targets(held, targets, quoted, 1e5, 0.002) == [("BBB", Side.SELL, Decimal(1), Purpose.EXIT), ("CCC", Side.BUY, Decimal(20), Purpose.ENTRY)]


@given(quantities, quantities, prices, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]))
def test_an_unreadable_equity_decides_nothing(held, targets, quoted, equity):
    assert target_quantities(dict.fromkeys(targets, 0.05), equity, quoted) == {}
    assert orders_for_targets(held, targets, quoted, equity, 0.002) == []


@given(quantities, st.sets(st.sampled_from("ABCDEFGH")))
def test_a_wanted_name_without_a_price_stays_and_a_dropped_one_goes(held, wanted):
    settings = combined_multipliers(0.0, 20.0, 0, 0.25, RiskLimits(), SETTINGS)
    sizing = size_portfolio(sorted(wanted), 0.1, settings, {}, SETTINGS)
    keep = kept_names(sizing, {})
    orders = orders_for_targets(held, target_quantities(sizing.weights, 1e5, {}), {}, 1e5, 0.002, keep)
    assert {o[0] for o in orders} == {s for s, q in held.items() if q > 0} - wanted


def test_at_the_halt_limit_nothing_new_is_bought_and_nothing_wanted_is_sold():
    quoted = {"AAA": 10.0, "BBB": 10.0, "OLD": 10.0}
    held = {"AAA": Decimal(50), "OLD": Decimal(50)}
    for drawdown in (-0.15, -0.18, math.nan):
        m = combined_multipliers(drawdown, 20.0, 0, 0.25, RiskLimits(), SETTINGS)
        sizing = size_portfolio(["AAA", "BBB"], 0.1, m, {}, SETTINGS)
        orders = orders_for_targets(held, target_quantities(sizing.weights, 1e5, quoted), quoted, 1e5, 0.002, kept_names(sizing, quoted))
        assert orders == [("OLD", Side.SELL, Decimal(50), Purpose.EXIT)]
