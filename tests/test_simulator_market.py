"The simulated market: any bar becomes a day that adds up to it, at the prices of that day, and nothing looks ahead."

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from v23.errors import InputError
from v23.market_calendar import NEW_YORK, session_hours, sessions_between
from v23.market_data import Panel
from v23.simulator.market import Dividend, Halt, MinutePath, SimulatedMarket, Split, minute_bars, named_rng
from v23.synthetic_market import synthetic_panel

DAYS = sessions_between(date(2025, 11, 17), date(2025, 12, 5))
DAY, EARLY, LATER = date(2025, 11, 25), date(2025, 11, 28), date(2025, 12, 1)  # EARLY closes after 210 minutes
SECOND = timedelta(seconds=1)


@lru_cache(maxsize=1)
def synthetic():
    return synthetic_panel(3, 60, date(2025, 10, 1), date(2026, 2, 27))


def panel_of(*bars, symbols=("AAA",), days=DAYS):
    "A panel that repeats one bar per symbol over some days."
    rows = {name: np.array([[b[k] for b in bars]] * len(days), dtype=float) for k, name in enumerate(("open", "high", "low", "close", "volume"))}
    return Panel(tuple(days), symbols, **rows, source="a test")


def at(day, hour, minute=0, second=0):
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=NEW_YORK)


@st.composite
def bars(draw):
    "Open, high, low, close, volume: penny stocks and dear ones, two to four decimals, flat days, days without volume."
    places = draw(st.sampled_from((2, 2, 3, 4)))
    least = draw(st.sampled_from((1, 10**places // 100 + 1, 10 ** (places + 1), 10 ** (places + 3))))
    width = draw(st.sampled_from((0, 1, max(1, least // 50), least)))
    opened, close, a, b = (draw(st.integers(least, least + width)) / 10**places for _ in range(4))
    ends_are_edges = draw(st.booleans())
    inner = (opened, close) if ends_are_edges else (opened, close, a, b)
    volume = draw(st.sampled_from((0, 1, 7)) | st.integers(0, 10**9))
    return opened, max(inner), min(inner), close, float(volume)


RATIOS = st.sampled_from([Decimal(r) for r in ("1.5", "0.1", "2", "3", "0.04", "1.003")])
SPLIT_DAYS = st.lists(st.sampled_from(DAYS), unique=True, max_size=3)


@st.composite
def splits(draw):
    return [Split("AAA", day, draw(RATIOS)) for day in draw(SPLIT_DAYS)]


@st.composite
def halts(draw, day=DAY):
    "Up to three, over the open, over the close, within a minute, overlapping, or longer than a day."
    opened = session_hours(day).open
    spans = draw(st.lists(st.tuples(st.integers(-3600, 25_000), st.sampled_from((1, 20, 60, 300, 1800, 10_000, 90_000))), max_size=3))
    return [Halt("AAA", opened + timedelta(seconds=a), opened + timedelta(seconds=a + n)) for a, n in spans]


# a bar becomes a day


@given(st.data(), bars(), st.integers(0, 99), st.sampled_from((DAY, EARLY)), splits())
def test_the_minutes_of_a_day_add_up_to_its_raw_bar(data, bar, seed, day, events):
    market = SimulatedMarket(panel_of(bar), seed, [*events, *data.draw(halts(day))])
    raw, m = market.raw_bar("AAA", day), market.minutes("AAA", day)
    n = int((session_hours(day).close - session_hours(day).open).total_seconds() // 60)
    assert n == (210 if day == EARLY else 390)
    assert {len(x) for x in (m.open, m.high, m.low, m.close, m.volume, m.vwap, m.count)} == {n}
    assert (m.open[0], m.high.max(), m.low.min(), m.close[-1]) == (raw.open, raw.high, raw.low, raw.close)
    assert m.volume.dtype.kind == "i" and m.volume.min() >= 0 and m.volume.sum() == raw.volume
    assert (m.low <= np.minimum(m.open, m.close)).all() and (np.maximum(m.open, m.close) <= m.high).all()
    assert (m.low <= m.vwap).all() and (m.vwap <= m.high).all()
    assert ((m.count == 0) == (m.volume == 0)).all() and (m.count <= m.volume).all()
    assert (market.auction_open("AAA", day), market.auction_close("AAA", day)) == (raw.open, raw.close)
    assert market.path("AAA", day).so_far(session_hours(day).close) == raw


def wrong(path, **change):
    return MinutePath(**{name: getattr(path, name) for name in path.__dataclass_fields__} | change)


def test_minutes_that_lose_shares_or_the_high_would_be_noticed():
    path = SimulatedMarket(synthetic(), 3).path(synthetic().symbols[0], DAY)
    lost, folded = path.traded.copy(), path.price.copy()
    lost[-1] -= 1
    folded[folded.argmax()] = folded.min()
    assert minute_bars(wrong(path, traded=lost)).volume.sum() != path.volume
    assert minute_bars(wrong(path, price=folded)).high.max() != path.price.max()


@given(bars(), st.integers(0, 99), st.integers(0, 390))
def test_minutes_so_far_are_the_bar_so_far(bar, seed, i):
    market = SimulatedMarket(panel_of(bar), seed)
    path, m = market.path("AAA", DAY), market.minutes("AAA", DAY)
    seen = path.so_far(path.hours.open + timedelta(minutes=i))
    assert seen.volume == m.volume[:i].sum()
    if i:
        assert (seen.open, seen.high, seen.low, seen.close) == (m.open[0], m.high[:i].max(), m.low[:i].min(), m.close[i - 1])


@given(bars(), st.integers(0, 99), st.sampled_from((DAY, EARLY)), splits())
def test_quotes_lie_on_the_cent_inside_the_raw_range_where_it_has_room(bar, seed, day, events):
    market = SimulatedMarket(panel_of(bar), seed, events)
    raw, path = market.raw_bar("AAA", day), market.path("AAA", day)
    assert path.bid.dtype.kind == path.ask.dtype.kind == "i" and path.bid.min() >= 1 and (path.bid < path.ask).all()
    assert (path.size >= 100).all() and (path.size % 100 == 0).all()
    floor, cap = np.ceil(raw.low * 100 - 1e-6), np.floor(raw.high * 100 + 1e-6)
    if cap > floor and floor >= 1:
        assert path.bid.min() >= floor and path.ask.max() <= cap
    assert (path.price[0], path.price.max(), path.price.min(), path.price[-1]) == (raw.open, raw.high, raw.low, raw.close)


def test_volume_is_high_at_both_ends_and_quotes_are_wide_early():
    panel = synthetic()
    market = SimulatedMarket(panel, 3)
    volume = sum(market.minutes(s, DAY).volume / market.path(s, DAY).volume for s in panel.symbols) / len(panel.symbols)
    first, middle, last = volume[:30].mean(), volume[150:240].mean(), volume[-30:].mean()
    assert first > 1.8 * middle and last > 1.5 * middle

    def spread(hour, minute):
        return np.median([market.quote_at(s, at(DAY, hour, minute)).spread_bps for s in panel.symbols])

    assert spread(9, 31) > 1.5 * spread(10, 30) > 1.5 * spread(15, 30) * 0.99 and spread(15, 59) <= spread(10, 30)

    def size(hour, minute):
        return np.median([market.quote_at(s, at(DAY, hour, minute)).bid_size for s in panel.symbols])

    assert size(9, 31) < 0.6 * size(15, 30)


def test_wild_and_thin_names_have_wider_quotes_and_less_behind_them():
    calm, thin, wild = (50, 50.5, 49.5, 50, 5e6), (50, 50.5, 49.5, 50, 5e4), (50, 54, 46, 50, 5e6)
    market = SimulatedMarket(panel_of(calm, thin, wild, symbols=("CALM", "THIN", "WILD")), 1)
    days = [d for d in DAYS if d != EARLY]

    def typical(name, of):
        return np.median([getattr(market.quote_at(name, at(d, 15, m)), of) for d in days for m in range(0, 60, 7)])

    for other in ("THIN", "WILD"):
        assert typical(other, "spread_bps") > typical("CALM", "spread_bps") and typical(other, "bid_size") < typical("CALM", "bid_size")


# splits


@given(bars(), st.integers(0, 9), splits())
def test_before_a_split_everything_is_raw_and_from_it_on_the_panels(bar, seed, events):
    panel = panel_of(bar)
    market, plain = SimulatedMarket(panel, seed, events), SimulatedMarket(panel, seed)
    for day in DAYS:
        factor = 1.0
        for e in events:
            factor *= float(e.ratio) if e.session > day else 1.0
        assert market.factor("AAA", day) == pytest.approx(factor)
        raw = market.raw_bar("AAA", day)
        assert [raw.open, raw.high, raw.low, raw.close] == pytest.approx([p * factor for p in bar[:4]])
        assert raw.volume == int(raw.volume) and abs(raw.volume - bar[4] / factor) <= 0.51
        if all(e.session <= day for e in events):
            assert raw == panel.bar("AAA", day) and market.quote_at("AAA", at(day, 11)) == plain.quote_at("AAA", at(day, 11))
        elif bar[3] > 0.1:
            assert market.price_at("AAA", at(day, 11)) == pytest.approx(factor * plain.price_at("AAA", at(day, 11)), rel=1e-6)
    for e in events:
        if e.session != DAYS[0]:
            ratio = market.auction_open("AAA", e.session) / market.previous_close("AAA", at(e.session, 9, 45))
            assert ratio == pytest.approx(bar[0] / bar[3] / float(e.ratio))


def test_two_splits_in_a_row_and_one_back():
    market = SimulatedMarket(panel_of((30.0, 30.3, 29.7, 30.0, 3000.0)), 1, [Split("AAA", LATER, Decimal("0.1")), Split("AAA", DAY, Decimal("1.5"))])
    days = (DAY - timedelta(days=1), DAY, EARLY, LATER)
    assert [market.auction_close("AAA", d) for d in days] == pytest.approx([4.5, 3.0, 3.0, 30.0])
    assert [market.raw_bar("AAA", d).volume for d in days] == [20000, 30000, 30000, 3000]
    assert market.previous_close("AAA", at(LATER, 9, 0)) == pytest.approx(3.0) and market.price_at("AAA", at(LATER, 9, 0)) == pytest.approx(3.0)
    assert [s.session for s in market.splits] == [DAY, LATER]


# halts


@settings(max_examples=60)
@given(halts(), st.integers(0, 9), st.lists(st.integers(-4000, 100_000), min_size=1, max_size=20))
def test_a_halted_quote_is_the_last_one_before_the_halt(events, seed, seconds):
    panel = panel_of((10, 11, 9, 10.5, 1e6))
    market, plain = SimulatedMarket(panel, seed, events), SimulatedMarket(panel, seed)
    for moment in (session_hours(DAY).open + timedelta(seconds=s) for s in seconds):
        covering = [e for e in events if e.start <= moment < e.end]
        assert market.halted("AAA", moment) == bool(covering)
        if not covering:
            assert market.resumes("AAA", moment) is None
            assert market.quote_at("AAA", moment) == plain.quote_at("AAA", moment) and market.price_at("AAA", moment) == plain.price_at("AAA", moment)
            continue
        end, before = market.resumes("AAA", moment), moment
        assert not market.halted("AAA", end) and market.halted("AAA", end - timedelta(microseconds=1))
        while held := [e.start for e in events if e.start <= before < e.end]:
            before = min(held) - timedelta(microseconds=1)
        assert market.quote_at("AAA", moment) == plain.quote_at("AAA", before) and market.quote_at("AAA", moment).at < min(e.start for e in covering)
        assert market.price_at("AAA", moment) == plain.price_at("AAA", before)


@settings(max_examples=60)
@given(halts(), st.integers(0, 9), st.booleans(), st.floats(9, 11), st.integers(-100, 24_000))
def test_a_crossing_never_lies_in_a_halt_and_is_the_first(events, seed, buy, limit, second):
    market = SimulatedMarket(panel_of((10, 11, 9, 10.5, 1e6)), seed, events)
    hours, limit = session_hours(DAY), round(limit, 2)
    after = hours.open + timedelta(seconds=second)
    found = market.next_crossing("AAA", DAY, after, buy, limit)

    def crosses(moment):
        q = market.quote_at("AAA", moment)
        return not market.halted("AAA", moment) and (q.ask <= limit + 1e-9 if buy else q.bid >= limit - 1e-9)

    changes = sorted({hours.open + timedelta(minutes=n) for n in range(391)} | {e.end for e in events if hours.open <= e.end <= hours.close})
    same_minute = after.replace(second=0) if after >= hours.open and not market.halted("AAA", after) else None
    expected = [m for m in changes if m > after and crosses(m) and m.replace(second=0) != same_minute]
    expected += [after] if after == hours.open and market.halted("AAA", after) and crosses(after) else []
    assert found == min(expected, default=None)
    assert found is None or (found > after and not market.halted("AAA", found))


def test_a_halt_over_the_open_shows_yesterday_and_one_over_the_close_lasts_over_night():
    panel, name = synthetic(), synthetic().symbols[5]
    over_open, over_close = Halt(name, at(DAY, 9, 0), at(DAY, 9, 45)), Halt(name, at(DAY, 15, 50), at(date(2025, 11, 26), 10))
    market = SimulatedMarket(panel, 3, [over_close, over_open])
    assert market.halts == (over_open, over_close)
    assert market.quote_at(name, at(DAY, 9, 40)).at == at(date(2025, 11, 24), 16) and market.price_at(name, at(DAY, 9, 40)) == market.previous_close(name, at(DAY, 9, 40))
    for moment in (at(DAY, 15, 55), at(DAY, 20), at(date(2025, 11, 26), 9, 59)):
        assert market.quote_at(name, moment).at == at(DAY, 15, 50) - timedelta(microseconds=1)
    assert market.quote_at(name, at(date(2025, 11, 26), 10)).at == at(date(2025, 11, 26), 10)
    assert market.next_crossing(name, DAY, at(DAY, 9, 30), True, 1e6) == at(DAY, 9, 45) and market.next_crossing(name, DAY, at(DAY, 15, 50), True, 1e6) is None
    m = market.minutes(name, DAY)
    assert m.volume[:15].sum() == 0 and m.volume[380:389].sum() == 0 and m.volume[389] > 0


def test_the_day_stands_still_in_a_halt_and_catches_up_in_the_reopening_auction():
    panel, name = synthetic(), synthetic().symbols[5]
    market, plain = SimulatedMarket(panel, 3, [Halt(name, at(DAY, 11), at(DAY, 11, 30))]), SimulatedMarket(panel, 3)
    path, m, p = market.path(name, DAY), market.minutes(name, DAY), plain.minutes(name, DAY)
    assert path.so_far(at(DAY, 11, 29, 59)) == path.so_far(at(DAY, 10, 59)) and path.so_far(at(DAY, 11, 30)) == plain.path(name, DAY).so_far(at(DAY, 11, 30))
    assert (m.volume[90:120] == 0).all() and (m.high[90:120] == m.low[90:120]).all() and m.volume[120] == p.volume[90:121].sum()
    for field in ("open", "high", "low", "close", "volume", "vwap", "count"):
        assert (getattr(m, field)[:90] == getattr(p, field)[:90]).all() and (getattr(m, field)[121:] == getattr(p, field)[121:]).all()


@pytest.mark.parametrize("edge", ["high", "low"])
def test_a_high_or_low_inside_a_halt_is_seen_in_the_reopening_auction(edge):
    panel, name = synthetic(), synthetic().symbols[5]
    path = SimulatedMarket(panel, 3).path(name, DAY)
    k = int(path.price.argmax() if edge == "high" else path.price.argmin())
    start, end = (path.hours.open + timedelta(minutes=int(np.clip(n, 0, 390))) for n in (k - 5, k + 5))
    m = SimulatedMarket(panel, 3, [Halt(name, start, end)]).minutes(name, DAY)
    extreme = getattr(m, edge) == getattr(panel.bar(name, DAY), edge)
    assert np.flatnonzero(extreme).tolist() == [min(k + 5, 389)]


def test_halts_within_a_minute_and_up_to_the_close_end_where_they_end():
    name = synthetic().symbols[5]
    inside, last = Halt(name, at(DAY, 11, 0, 10), at(DAY, 11, 0, 40)), Halt(name, at(DAY, 15, 50), at(DAY, 16, 0, 30))
    market = SimulatedMarket(synthetic(), 3, [inside, last])
    assert market.next_crossing(name, DAY, at(DAY, 11, 0, 20), True, 1e6) == inside.end
    assert market.next_crossing(name, DAY, at(DAY, 15, 49, 30), True, 1e6) is None
    assert market.path(name, DAY).so_far(at(DAY, 16)) == market.raw_bar(name, DAY)


# the feed


def test_a_sip_feed_shows_the_best_quote():
    market = SimulatedMarket(synthetic(), 3)
    for s in synthetic().symbols:
        assert market.feed_quote(s, at(DAY, 15, 30)) == market.quote_at(s, at(DAY, 15, 30))
    assert market.feed_quote("NOPE", at(DAY, 15, 30)) is None and SimulatedMarket(synthetic(), 3, feed="iex").feed_quote("NOPE", at(DAY, 12)) is None


def test_a_poor_feed_is_wide_old_or_one_sided_in_some_minutes_and_executions_do_not_see_it():
    sip, iex, again = SimulatedMarket(synthetic(), 3), SimulatedMarket(synthetic(), 3, feed="iex"), SimulatedMarket(synthetic(), 3, feed="iex")
    kinds, total = {"wide": 0, "old": 0, "one_sided": 0, "same": 0}, 0
    for s in reversed(synthetic().symbols):
        for n in range(60):
            moment = at(DAY, 11, n, 17)
            best, shown = iex.quote_at(s, moment), iex.feed_quote(s, moment)
            assert best == sip.quote_at(s, moment) and shown == again.feed_quote(s, moment) == iex.feed_quote(s, moment.astimezone(UTC)) and shown.feed == "iex"
            total += 1
            if not shown.is_valid:
                kinds["one_sided"] += 1
                assert (shown.bid, shown.bid_size) == (0, 0) and shown.ask == best.ask or (shown.ask, shown.ask_size) == (0, 0) and shown.bid == best.bid
            elif shown.at < moment:
                kinds["old"] += 1
                assert 10 <= shown.age_s(moment) <= 120 and (shown.bid, shown.ask) == (sip.quote_at(s, shown.at).bid, sip.quote_at(s, shown.at).ask)
                assert iex.feed_quote(s, moment + 20 * SECOND).at == shown.at
            elif shown.ask - shown.bid > 4 * (best.ask - best.bid):
                kinds["wide"] += 1
                assert 5 - 1e-6 <= (shown.ask - shown.bid) / (best.ask - best.bid) <= 20 + 1e-6
            else:
                kinds["same"] += 1
                assert (shown.bid, shown.ask, shown.at) == (best.bid, best.ask, best.at)
    share = {k: n / total for k, n in kinds.items()}
    assert 0.20 < share["wide"] < 0.30 and 0.11 < share["old"] < 0.19 and 0 < share["one_sided"] < 0.03 and share["same"] > 0.5


def test_a_quote_of_a_poor_feed_is_never_older_than_the_bell():
    iex = SimulatedMarket(synthetic(), 3, feed="iex")
    assert all(iex.feed_quote(s, at(DAY, 9, 30, 5)).at.date() == DAY for s in synthetic().symbols)


# nothing looks ahead, and nothing depends on the order of questions


@settings(max_examples=30)
@given(st.data(), splits(), halts())
def test_a_market_that_ends_today_answers_as_one_that_goes_on(data, split_events, halt_events):
    whole = synthetic()
    name = whole.symbols[data.draw(st.integers(0, 59))]
    events = [Split(name, e.session, e.ratio) for e in split_events] + [Halt(name, e.start, e.end) for e in halt_events]
    short, long = SimulatedMarket(whole.upto(DAY), 3, events, "iex"), SimulatedMarket(whole, 3, events, "iex")
    long.minutes(name, LATER)
    for second in data.draw(st.lists(st.integers(-3600, 30_000), min_size=1, max_size=8)):
        moment = session_hours(DAY).open + timedelta(seconds=second)
        for ask in ("price_at", "quote_at", "feed_quote", "previous_close", "halted", "resumes"):
            assert getattr(short, ask)(name, moment) == getattr(long, ask)(name, moment), ask
        assert short.last_path(name, moment).so_far(moment) == long.last_path(name, moment).so_far(moment)
        limit = long.price_at(name, moment)
        assert short.next_crossing(name, DAY, moment, True, limit) == long.next_crossing(name, DAY, moment, True, limit)
    a, b = short.minutes(name, DAY), long.minutes(name, DAY)
    assert all((getattr(a, f) == getattr(b, f)).all() for f in ("open", "high", "low", "close", "volume", "vwap", "count"))
    assert (short.raw_bar(name, DAY), short.auction_close(name, DAY), short.factor(name, DAY)) == (long.raw_bar(name, DAY), long.auction_close(name, DAY), long.factor(name, DAY))


@given(halts(), st.integers(0, 9))
def test_nothing_before_a_halt_depends_on_it(events, seed):
    assume(events)
    panel = panel_of((10, 11, 9, 10.5, 1e6))
    market, plain = SimulatedMarket(panel, seed, events), SimulatedMarket(panel, seed)
    moment = min(e.start for e in events) - SECOND
    for ask in ("price_at", "quote_at", "previous_close"):
        assert getattr(market, ask)("AAA", moment) == getattr(plain, ask)("AAA", moment)
    assert market.last_path("AAA", moment).so_far(moment) == plain.last_path("AAA", moment).so_far(moment)


def test_an_answer_does_not_depend_on_earlier_questions_and_another_seed_gives_another():
    panel = synthetic()
    one, two, other = SimulatedMarket(panel, 3), SimulatedMarket(panel, 3), SimulatedMarket(panel, 4)
    backwards = [two.quote_at(s, at(DAY, 13)) for s in reversed(panel.symbols)][::-1]
    assert [one.quote_at(s, at(DAY, 13)) for s in panel.symbols] == backwards != [other.quote_at(s, at(DAY, 13)) for s in panel.symbols]
    assert one.minutes(panel.symbols[0], DAY) is one.minutes(panel.symbols[0], DAY)
    assert named_rng(1, "a").random() == named_rng(1, "a").random() != named_rng(1, "b").random()


# refusals, and questions without an answer


def test_without_a_bar_there_is_no_answer():
    panel = synthetic()
    market = SimulatedMarket(panel, 3)
    for symbol, day in (("NOPE", DAY), (panel.symbols[0], date(2025, 11, 27)), (panel.symbols[0], date(2030, 1, 2))):
        assert [f(symbol, day) for f in (market.raw_bar, market.minutes, market.path, market.auction_open, market.auction_close)] == [None] * 5
        assert market.next_crossing(symbol, day, at(DAY, 12), True, 1e6) is None
    assert market.factor("NOPE", DAY) == 1.0 and not market.halted("NOPE", at(DAY, 12)) and market.resumes("NOPE", at(DAY, 12)) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Halt("", at(DAY, 10), at(DAY, 11)), ("symbol", "''", "a name")),
        (lambda: Halt("AAA", datetime(2025, 11, 25, 10), at(DAY, 11)), ("start", "AAA", "time zone")),
        (lambda: Halt("AAA", at(DAY, 10), "11:00"), ("end", "11:00", "time zone")),
        (lambda: Halt("AAA", at(DAY, 11), at(DAY, 10)), ("end", "10:00", "after", "11:00")),
        (lambda: Split("AAA", at(DAY, 10), Decimal(2)), ("session", "session is expected")),
        (lambda: Split("AAA", date(2025, 11, 27), Decimal(2)), ("session", "2025, 11, 27", "New York session")),
        (lambda: Split("AAA", date(1999, 1, 4), Decimal(2)), ("session", "1999", "New York session")),
        (lambda: Split("AAA", DAY, 2.0), ("ratio", "2.0", "Decimal")),
        (lambda: Split("AAA", DAY, Decimal(1)), ("ratio", "'1'", "other than 1")),
        (lambda: Split("AAA", DAY, Decimal(-2)), ("ratio", "-2", "positive")),
        (lambda: Dividend("AAA", date(2025, 11, 29), Decimal(1)), ("session", "New York session")),
        (lambda: Dividend("AAA", DAY, Decimal("NaN")), ("rate", "NaN", "dollars")),
        (lambda: SimulatedMarket(synthetic(), 3, feed="SIP"), ("feed", "'SIP'", "sip or iex")),
        (lambda: SimulatedMarket(synthetic(), 3, ["AAPL"]), ("event", "'AAPL'", "Halt")),
        (lambda: SimulatedMarket(synthetic(), 3, [Dividend("NOPE", DAY, Decimal(1))]), ("dividend", "'NOPE'", "60 symbols")),
        (lambda: SimulatedMarket(panel_of((1, 1, 1, 1, 1)), 3, [Split("AAA", DAY, Decimal(2)), Split("AAA", DAY, Decimal(3))]), ("split", "AAA", "one split a day")),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, words):
    with pytest.raises(InputError) as e:
        make()
    message = str(e.value)
    assert "\n" not in message and all(w in message for w in words), message


def test_an_instant_without_a_time_zone_is_refused_also_where_there_are_halts():
    for events in ((), (Halt(synthetic().symbols[0], at(DAY, 10), at(DAY, 11)),)):
        with pytest.raises(InputError, match="time zone"):
            SimulatedMarket(synthetic(), 3, events).quote_at(synthetic().symbols[0], datetime(2025, 11, 25, 10, 30))


def test_events_are_kept_in_order():
    a, b, c = (Dividend("AAA", d, Decimal("0.1")) for d in (LATER, DAY, EARLY))
    market = SimulatedMarket(panel_of((1, 1, 1, 1, 1)), 3, (x for x in (a, b, c)))
    assert (market.dividends, market.splits, market.halts) == ((b, c, a), (), ())
