"""The loopback server under requests nobody would send on purpose.

Whatever comes in, an answer comes out within five seconds: never a 5xx, JSON that parses wherever there is a body, and
an account whose cash, shares and orders still agree afterwards. The first half needs nothing; the second generates from
Alpaca's OpenAPI documents (not part of this repository) with schemathesis. The seed is in pytest's header.
"""

import http.client
import json
import os
import re
import socket
import threading
import time
from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import yaml
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from v23.market_calendar import NEW_YORK
from v23.simulator.account import asset_id, fractionable
from v23.simulator.exchange import ROUTES, Exchange
from v23.simulator.server import Shell, SimulatorServer, build_app
from v23.synthetic_market import synthetic_panel

PANEL = synthetic_panel(3, 12, date(2025, 12, 1), date(2026, 2, 27))
NOON = datetime(2026, 1, 23, 12, 0, tzinfo=NEW_YORK)
NAMES = sorted((s for s in PANEL.symbols if fractionable(s)), key=lambda s: PANEL.bar(s, NOON.date()).close)[:4]
KEYS = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
LIMIT_S = 5.0
QUICK = settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
PACKAGE = Path(__file__).parent.parent / "v23" / "simulator"


def fresh():
    "An account that holds a little, owes nothing and has an order that rests, a stop and one that is done."
    x = Exchange(PANEL, 3, NOON, Decimal(100_000))
    price = x.market.quote_at(NAMES[1], x.now).midpoint
    for n, more in enumerate(({}, {"symbol": NAMES[1]}, {"type": "limit", "limit_price": f"{price / 2:.2f}"}, {"symbol": NAMES[1], "type": "stop", "stop_price": f"{price * 2:.2f}"})):
        body = {"symbol": NAMES[0], "qty": "10", "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": f"mine-{n}"} | more
        assert x.handle("POST", "/v2/orders", {}, json.dumps(body).encode()).status == 200
        x.advance_by(3)
    return x


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(fresh()) as made:
        yield made


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def send(server, method, target, body=b"", headers=KEYS):
    "One request as it stands; (status, data). Fails for whatever a client must never see."
    line = f"{method} {target[:200]} {body[:200]!r}"
    began, connection = time.monotonic(), http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise AssertionError(f"{type(e).__name__} after {time.monotonic() - began:.1f} s: {line}") from e
    finally:
        connection.close()
    assert time.monotonic() - began < LIMIT_S, line
    assert 200 <= answer.status < 500, f"{answer.status}: {line}"
    if method == "HEAD" or answer.status == 204:
        assert content == b"", line
        return answer.status, None
    assert (answer.headers["content-type"] or "").startswith("application/json"), f"{answer.status} {content[:100]!r}: {line}"
    data = json.loads(content, parse_constant=refuse_constant)
    assert answer.status < 400 or isinstance(data["message"], str), line
    assert len(content) < 3_000_000, f"{len(content)} bytes: {line}"
    return answer.status, data


def activities(server, kind):
    "All of a kind, over all pages."
    found, token = [], ""
    while True:
        _, page = send(server, "GET", f"/v2/account/activities/{kind}?direction=asc&page_size=100" + (f"&page_token={quote(token)}" if token else ""))
        found += page
        if len(page) < 100:
            return found
        token = page[-1]["id"]


def check_books(server):
    "Cash, shares and orders agree with each other, seen through the server alone."
    account, held = send(server, "GET", "/v2/account")[1], send(server, "GET", "/v2/positions")[1]
    value = sum((Decimal(p["market_value"]) for p in held), Decimal(0))
    assert abs(Decimal(account["equity"]) - Decimal(account["cash"]) - value) <= Decimal("0.02"), (account, held)
    assert Decimal(account["buying_power"]) >= 0
    fills, shares, spent = activities(server, "FILL"), defaultdict(Decimal), Decimal(0)
    for f in fills:
        signed = Decimal(f["qty"]) * (1 if f["side"] == "buy" else -1)
        shares[f["symbol"]] += signed
        spent += signed * Decimal(f["price"])
    assert abs(Decimal(account["cash"]) - (100_000 - spent)) <= Decimal("0.01")
    assert {s: q for s, q in shares.items() if q} == {p["symbol"]: Decimal(p["qty"]) for p in held}
    for p in held:
        assert abs(Decimal(p["qty_available"])) <= abs(Decimal(p["qty"])), p
        assert abs(Decimal(p["qty"]) * Decimal(p["current_price"]) - Decimal(p["market_value"])) <= Decimal("0.01"), p
    everything, working = (send(server, "GET", f"/v2/orders?status={s}&limit=500")[1] for s in ("all", "open"))
    filled = defaultdict(Decimal)
    for f in fills:
        filled[f["order_id"]] += Decimal(f["qty"])
    for o in everything:
        assert Decimal(o["filled_qty"]) == filled[o["id"]] and (o["qty"] is None or filled[o["id"]] <= Decimal(o["qty"])), o
        assert (o["status"] == "filled") <= (filled[o["id"]] > 0), o
    done = {"filled", "canceled", "expired", "rejected", "replaced"}
    assert {o["id"] for o in working} == {o["id"] for o in everything if o["status"] not in done}


# What is sent

SOURCE = "".join(p.read_text(encoding="utf-8") for p in sorted(PACKAGE.glob("*.py")))
PARAMETERS = sorted({n for found in re.findall(r'query(?:\.get\(|\[|, )"(\w+)"', SOURCE) for n in [found]})
HUGE = ("9" * 400, "1" * 5000, "1e400", "1e-400", "1e-99999999", "-1e308", "0x10", "1_000", "²", "٣", "１２", "NaN", "Infinity", "sNaN", "-0", "1" * 18 + "." + "3" * 40)
TIMES = (
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "2026-01-23T12:00:00.123456789Z", "10000-01-01", "2026-W04-5", "20260123",
    "0001-01-01", "9999-12-31", "2026-01-23T12:00:00+99:99", "1970-01-01T00:00:00Z", "2026-01-23 12:00:00+05:00",
)  # fmt: skip
STRANGE = ("", " ", "\x00", "\n", "a\nb", "\n/", "%", "%zz", "../../etc/passwd", "'; DROP TABLE orders; --", "<script>", "é", "日本", "🦙", "\u202e", "null", "None", "true", "[]", "{}", ",", ",,,", "a" * 3000)
hostile = st.one_of(st.sampled_from(HUGE), st.sampled_from(TIMES), st.sampled_from(STRANGE), st.text(max_size=30), st.integers().map(str))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), hostile, st.sampled_from([10**30, -(10**30), 1e308, float("nan"), float("inf"), "\ud800"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def either(usual, *strange):
    "Mostly what is usual, so that requests get past the first check."
    return st.one_of(usual, usual, usual, *strange)


price = st.floats(0.01, 500).map(lambda p: f"{p:.2f}")
FIELDS = {
    "symbol": st.sampled_from(NAMES), "qty": st.one_of(st.integers(1, 50), st.sampled_from(["1", "2.5", "0.000000001", "1e1", 3.0])), "notional": st.sampled_from(["5", "100.00", "0.99"]),
    "side": st.sampled_from(["buy", "sell"]), "type": st.sampled_from(["market", "limit", "stop", "stop_limit", "trailing_stop"]),
    "time_in_force": st.sampled_from(["day", "gtc", "opg", "cls", "ioc", "fok"]), "limit_price": price, "stop_price": price, "trail_price": price, "trail_percent": price,
    "extended_hours": st.booleans(), "order_class": st.sampled_from(["", "simple", "bracket", "oco", "oto", "mleg"]), "client_order_id": st.text(max_size=130),
    "position_intent": st.sampled_from(["buy_to_open", "sell_to_close", "nonsense"]), "legs": st.just([]), "take_profit": st.just({"limit_price": "5"}), "trail": price,
}  # fmt: skip
SWITCHES = ("suspend_trade", "no_shorting", "fractional_trading", "trade_confirm_email", "max_margin_multiplier", "max_options_trading_level", "dtbp_check", "pdt_check")


@st.composite
def orders(draw):
    "An order with a few fields that are not what they should be."
    body = {k: draw(FIELDS[k]) for k in ("symbol", "side", "time_in_force")} | {"type": draw(st.sampled_from(["market", "market", "limit", "stop", "stop_limit"]))}
    body |= {k: draw(FIELDS[k]) for k in (("qty",) if draw(st.integers(0, 4)) else ("notional",))}
    body |= {f"{k}_price": draw(price) for k in ("limit", "stop") if k in body["type"]}
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2)):
        body[name] = draw(either(FIELDS[name], anything))
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=1)) if draw(st.booleans()) else ():
        del body[name]
    return body


def as_json(value):
    return json.dumps(value).encode()


broken = st.one_of(
    st.binary(max_size=40), anything.map(as_json), st.sampled_from([b"", b"{", b"[]", b"null", b"NaN", b'{"a":1}{"b":2}', b"\xff\xfe{}", b'{"qty":1,"qty":2}', b'"\\ud800"']),
    st.integers(1, 100_000).map(lambda n: b"[" * n), st.integers(1, 20_000).map(lambda n: b'{"a":' * n + b"1" + b"}" * n),
)  # fmt: skip
BODIES = {
    "/v2/orders": orders().map(as_json),
    "/v2/account/configurations": st.dictionaries(st.sampled_from(SWITCHES), either(st.booleans(), anything), max_size=3).map(as_json),
}
changes = st.dictionaries(st.sampled_from(["qty", "limit_price", "stop_price", "time_in_force", "client_order_id", "trail", "notional"]), either(st.one_of(*FIELDS.values()), anything), max_size=3).map(as_json)
KNOWN = {"orders": "order", "positions": "symbol", "assets": "symbol", "stocks": "symbol", "activities": "kind"}


@st.composite
def requests(draw):
    "Method, path, query pairs and body of one request; {order} stands for an order that exists."
    verb, pattern, _ = draw(st.sampled_from(ROUTES))
    if draw(st.integers(0, 12)) == 0:
        verb = draw(st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW"]))
    path = pattern.pattern
    names = {"symbol": [*NAMES, asset_id(NAMES[0])], "order": ["{order}"], "kind": ["FILL", "CSD", "DIV", "NOPE"]}
    for group in re.findall(r"\(\?:/\([^)]*\)\)\?|\([^)]*\)", path):
        kind = KNOWN.get(path.split(group)[0].rstrip("/").rpartition("/")[2], "symbol")
        value = draw(either(st.sampled_from(names[kind]), hostile))
        path = path.replace(group, ("/" if "?:" in group else "") + (value if value == "{order}" else quote(value, safe="")), 1)
    if draw(st.integers(0, 15)) == 0:
        path += draw(st.sampled_from(["/", "//", "/..", "/%2e%2e/", "%00", "%ff", ";a=b", "/x" * 500]))
    usual = st.sampled_from([*NAMES, ",".join(NAMES), "1Day", "1Min", "all", "asc", "2026-01-20", "2026-01-23T17:00:00Z", "5", "100", "true", "mine-0"])
    query = draw(st.lists(st.tuples(either(st.sampled_from(PARAMETERS), st.text(max_size=5)), either(usual, hostile)), max_size=4))
    if path.startswith("/v2/stocks") and draw(st.integers(0, 9)):
        query = [("symbols", ",".join(NAMES)), ("timeframe", "1Day"), *query]
    usual_body = BODIES.get(path, changes) if verb in ("POST", "PATCH") else st.just(b"")
    return verb, path, query, draw(either(usual_body, broken) if verb != "GET" else st.just(b""))


def perform(server, step):
    "Send one step of an example: a request, or some virtual seconds."
    if isinstance(step, float):
        server.shell.exchange.advance_by(step)
        return 0
    method, path, query, body = step
    known = list(server.shell.exchange.orders)
    path = path.replace("{order}", known[len(query) % len(known)])
    target = path + ("?" + urlencode(query, errors="replace") if query else "")
    status, data = send(server, method, target, body)
    if method == "PUT" or method not in ("GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        assert status in (404, 405), (method, target, status)
    return status


def test_the_strategies_reach_what_they_are_for():
    assert {"symbols", "limit", "page_token", "start", "end", "after", "until", "direction", "page_size", "client_order_id", "qty", "percentage"} <= set(PARAMETERS), PARAMETERS
    assert len(NAMES) == 4 and len({v for v, _, _ in ROUTES}) >= 4


# Without the documents


@QUICK
@given(st.lists(st.one_of(requests(), requests(), requests(), st.sampled_from([0.2, 5.0, 90.0, 20_000.0])), min_size=1, max_size=8))
def test_no_request_breaks_the_server_or_the_books(server, steps):
    server.shell.exchange = fresh()
    for step in steps:
        status = perform(server, step)
        event(f"status {status}")
    check_books(server)


@pytest.mark.parametrize("value", [*HUGE, *TIMES, *STRANGE])
def test_no_value_of_any_parameter_breaks_the_server(server, value):
    "Every parameter the package reads, on every route that reads, with every strange value: deterministic."
    x = server.shell.exchange = fresh()
    for verb, pattern, _ in ROUTES:
        if verb == "GET":
            path = re.sub(r"\(\?:/\([^)]*\)\)\?", "", pattern.pattern)
            path = re.sub(r"\([^)]*\)", lambda found: next(iter(x.orders)) if "orders" in found.string else NAMES[0], path)
            answer = defaultdict(list)
            for name in PARAMETERS:
                query = {"symbols": NAMES[0], "timeframe": "1Day"} if "stocks" in path else {"start": "2026-01-20", "end": "2026-01-23"} if "calendar" in path else {}
                try:
                    reply = x.handle("GET", path, query | {name: value})
                    assert reply.status < 500
                    json.loads(reply.body, parse_constant=refuse_constant)
                except Exception as e:  # noqa: BLE001  (what escapes is a 500)
                    answer[type(e).__name__].append(f"{path}?{name}={value[:30]}")
            assert not answer
    for name in ("limit", "after"):
        send(server, "GET", f"/v2/orders?{urlencode({name: value})}")
    for verb in ("GET", "DELETE"):
        send(server, verb, f"/v2/positions/{quote(value, safe='')}")


FIELD_VALUES = [*HUGE, *TIMES[:2], *STRANGE, 10**30, -1, 0, 1e308, 5e-324, True, False, None, [], {}, [1], {"a": 1}, "\ud800", ["buy"]]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_no_value_of_any_field_of_an_order_breaks_the_server(server, name):
    server.shell.exchange = fresh()
    for value in FIELD_VALUES:
        for more in ({"type": "market"}, {"type": "limit", "limit_price": "5.00"}, {"type": "stop", "stop_price": "5.00"}):
            body = {"symbol": NAMES[2], "qty": "1", "side": "buy", "time_in_force": "day"} | more | {name: value}
            body = {k: v for k, v in body.items() if k != "qty" or name != "notional"}
            status, data = send(server, "POST", "/v2/orders", as_json(body))
            if status == 200:
                assert len(data["client_order_id"]) <= 128
        send(server, "PATCH", f"/v2/orders/{list(server.shell.exchange.orders)[2]}", as_json({name: value}))
    server.shell.exchange.advance_by(30)
    check_books(server)


def test_sizes_at_which_servers_break(server):
    server.shell.exchange = fresh()
    megabyte = b"x" * 1_000_000
    for body in (b"[" * 1_000_000, b'{"a":' * 200_000, b'{"symbol":"' + megabyte + b'"}', b'{"client_order_id":"' + megabyte + b'"}', megabyte, b" " * 1_000_000, b"1" * 1_000_000, b'{"qty":' + b"9" * 1_000_000 + b"}"):
        for method, path in (("POST", "/v2/orders"), ("PATCH", "/v2/account/configurations"), ("DELETE", "/v2/orders"), ("GET", "/v2/account"), ("POST", "/sim/advance"), ("POST", "/sim/faults")):
            send(server, method, path, body)
    send(server, "GET", "/v2/orders?symbols=" + ",".join(["A"] * 5_000))
    send(server, "GET", "/v2/stocks/quotes/latest?symbols=" + ",".join(f"A{n}" for n in range(5_000)))
    send(server, "GET", "/v2/orders?" + "&".join(f"limit={n}" for n in range(1, 3_000)))
    send(server, "GET", "/v2/" + "a/" * 10_000)
    check_books(server)


SIM = ("{}", "[]", "5", "null", '"to"', '{"to":5}', '{"to":"yesterday"}', '{"to":"2026-01-23T12:00:00"}', '{"seconds":NaN}', '{"seconds":-5}', '{"seconds":1e400}', '{"seconds":"x"}', '{"seconds":[]}',
       '{"to":"9999-12-31T23:59:59-23:59"}', '{"to":"0001-01-01T00:00:00+23:59"}', '{"method":"GET"}', '{"method":5,"path_prefix":5,"kind":5}', '{"kind":"reject","nth":"x"}', '{"kind":"CSD","amount":"NaN"}',
       '{"kind":"CSD","amount":[1]}', '{"kind":"CSW","amount":1e40}', '{"kind":"reject","symbol":[],"times":0}', '{"surprise":1}')  # fmt: skip


@pytest.mark.parametrize("path", ["/sim/advance", "/sim/faults", "/sim/order_faults", "/sim/flows"])
def test_the_simulations_own_doors_refuse_what_they_cannot_do(server, path):
    server.shell.exchange = fresh()
    for body in SIM:
        send(server, "POST", path, body.encode())
    for query in ("after=x", "after=-1", "after=" + "9" * 5_000, "after=²"):
        send(server, "GET", f"/sim/events?{quote(query, safe='=')}")


def test_keys_may_be_anything(server):
    for key in ("", "é", "x" * 5_000, "k\tk", "🦙".encode().decode("latin-1")):
        status, _ = send(server, "GET", "/v2/account", headers={"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": key})
        assert status in (200, 401)


def test_many_at_once_are_served_and_the_books_agree(server):
    x, wrong = fresh(), []
    server.shell.exchange = x

    def client(number):
        try:
            for n in range(25):
                send(server, "POST", "/v2/orders", as_json({"symbol": NAMES[n % 4], "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": f"{number}-{n}"}))
                send(server, "GET", "/v2/positions")
                x.advance_by(0.5)
        except AssertionError as e:
            wrong.append(e)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    assert not wrong and not any(t.is_alive() for t in threads)
    assert len(x.orders) == 4 + 8 * 25
    check_books(server)


def test_a_client_that_never_finishes_holds_up_nobody(server):
    server.shell.exchange = fresh()
    idle = []
    for start in (b"", b"POST /v2/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", b"GET /v2/account", b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
        connection.sendall(start)
        idle.append(connection)
    check_books(server)
    for connection in idle:
        connection.close()


FRAMES = ("", "{", "null", "[]", "5", '"x"', "[" * 50_000, '{"action":5}', '{"action":["listen"],"data":5}', '{"action":"listen","data":{"streams":5}}', '{"action":"authenticate","data":{"key_id":5,"secret_key":[]}}',
          '{"action":"authenticate","data":{"key_id":"\\ud800","secret_key":"é"}}', '{"action":"\\ud800"}', "x" * 500_000, b"\xff\xfe\x00", b"\x81\xa1a\x01")  # fmt: skip


@pytest.mark.parametrize("keys", [None, ("k", "s")], ids=["any keys", "one pair"])
def test_no_frame_breaks_the_stream(keys):
    from websockets.sync.client import connect

    with SimulatorServer(fresh(), keys=keys) as made, connect(f"ws://127.0.0.1:{made.port}/stream") as ws:
        for frame in FRAMES:
            ws.send(frame)
            reply = json.loads(ws.recv(timeout=LIMIT_S))
            assert reply["stream"] in ("authorization", "listening"), (frame[:80], reply)
        ws.send(json.dumps({"action": "authenticate", "data": {"key_id": "k", "secret_key": "s"}}))
        assert json.loads(ws.recv(timeout=LIMIT_S))["data"]["status"] == "authorized"


def stream_paths():
    "Every websocket address of the application."
    from starlette.routing import WebSocketRoute

    routes = build_app(Shell(fresh())).routes
    return sorted({re.sub(r"\{\w+(:\w+)?\}", "iex", r.path) for r in routes if isinstance(r, WebSocketRoute)})


@pytest.mark.parametrize("path", stream_paths())
def test_no_first_frame_breaks_any_stream(server, path):
    "Whatever comes first, there is an answer or a proper goodbye, and the next client is served."
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    server.shell.exchange = fresh()
    for frame in (*FRAMES, b"\x00" * 100_000, "[]" * 10_000, b"\xc1", b"\xdf\xff\xff\xff\xff"):
        with connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None) as ws:
            try:
                if not path.startswith("/stream"):
                    ws.recv(timeout=LIMIT_S)  # a data stream speaks first
                ws.send(frame)
                assert ws.recv(timeout=LIMIT_S)
            except ConnectionClosed as e:
                assert e.rcvd is not None and e.rcvd.code not in (1006, 1011), (path, frame[:60], e)
    check_books(server)


def test_an_unknown_stream_is_refused_and_not_broken(server):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    for path in ("/nothing", "/v2/account", "/v1beta1/news", "/stream/x"):
        with pytest.raises(InvalidStatus) as e:
            connect(f"ws://127.0.0.1:{server.port}{path}")
        assert e.value.response.status_code in (403, 404), path


# From the documents

FOLDER = Path(os.environ["V23_REAL_DATA"]).parent / "alpaca" if os.environ.get("V23_REAL_DATA") else None
DOCUMENTS = [f for name in ("trading-openapi.yaml", "data-openapi.yaml") if FOLDER and (f := FOLDER / name).is_file()]


def documented():
    "The documented operations the exchange has, ready to generate requests."
    import schemathesis

    found = []
    for file in DOCUMENTS:
        schema = schemathesis.openapi.from_dict(yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        for result in schema.get_all_operations():
            operation = result.ok()
            path = re.sub(r"\{\w+\}", "FILL", operation.path)
            if any(verb == operation.method.upper() and pattern.fullmatch(path) for verb, pattern, _ in ROUTES):
                found.append(pytest.param(operation, id=operation.label))
    return found or [pytest.param(None, marks=pytest.mark.skip(reason="no Alpaca OpenAPI documents: V23_REAL_DATA names no folder beside one called alpaca"))]


@pytest.mark.parametrize("operation", documented())
def test_what_the_documents_allow_and_forbid_breaks_nothing(server, operation):
    from schemathesis import GenerationMode

    server.shell.exchange = fresh()
    for mode in GenerationMode:

        @settings(QUICK, max_examples=20, phases=[Phase.explicit, Phase.generate])
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            import requests

            kwargs = case.as_transport_kwargs(base_url=server.url, headers=KEYS)
            prepared = requests.Request(**{k: kwargs[k] for k in ("method", "url", "params", "json", "data", "headers") if k in kwargs}).prepare()
            body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body or b""
            send(server, prepared.method, prepared.path_url, body, dict(KEYS) | {"Content-Type": "application/json"})
            server.shell.exchange.advance_by(1)

        ask()
    check_books(server)


# The checks are checked


PLANTED = {
    "500": (500, b'{"message":"m"}', "application/json"), "not JSON": (200, b"<html>", "application/json"), "NaN": (200, b'{"a":NaN}', "application/json"),
    "HTML": (200, b"<html>", "text/html"), "no message": (422, b'{"code":1}', "application/json"), "a body with 204": (204, b"x", "application/json"),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_found(monkeypatch, what):
    status, body, kind = PLANTED[what]

    class Answer:
        headers = {"content-type": kind}

        def read(self):
            return body

    Answer.status = status
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", lambda self: Answer())
    monkeypatch.setattr(http.client.HTTPConnection, "endheaders", lambda self, message: None)
    with pytest.raises((AssertionError, ValueError, KeyError)):
        send(type("Somewhere", (), {"port": 1}), "GET", "/v2/account")


def test_a_cent_too_much_is_found(server):
    x = server.shell.exchange = fresh()
    check_books(server)
    x.cash += Decimal("0.05")
    with pytest.raises(AssertionError):
        check_books(server)
    x.cash -= Decimal("0.05")
    next(iter(x.holdings.values())).quantity += 1
    with pytest.raises(AssertionError):
        check_books(server)
