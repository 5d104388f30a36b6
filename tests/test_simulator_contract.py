"""The simulated exchange against Alpaca's own OpenAPI documents, which are not part of this repository.

A walk takes one account through every state it can be in and asks everything the documents describe, with every
documented parameter; each answer must have a documented status and fit the schema of it, with no key the document does
not know. Where the broker was seen to differ from its document (shared notes, `[rec]` and `[probe]`), the table
`DEVIATIONS` says so, and an entry nothing needs any more fails.

    python tests/test_simulator_contract.py        # the table of what the simulation does not have
"""

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest
import requests
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import extend

from v23.market_calendar import NEW_YORK
from v23.simulator.account import Flow, OrderFault, asset_id, fractionable
from v23.simulator.exchange import ROUTES, Exchange
from v23.simulator.faults import Scenario
from v23.simulator.market import Dividend, Halt, Split
from v23.simulator.server import Shell, SimulatorServer
from v23.synthetic_market import synthetic_panel

# The documents

FOLDER = Path(os.environ["V23_REAL_DATA"]).parent / "alpaca" if os.environ.get("V23_REAL_DATA") else None
FILES = {"trading": "trading-openapi.yaml", "data": "data-openapi.yaml"}
HERE = FOLDER is not None and all((FOLDER / name).is_file() for name in FILES.values())
needs_documents = pytest.mark.skipif(not HERE, reason="no Alpaca OpenAPI documents: V23_REAL_DATA names no folder beside one called alpaca")
METHODS = ("get", "post", "put", "patch", "delete")
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
FORMATS = FormatChecker(formats=())


def checks(name):
    def keep(test):
        FORMATS.checks(name, raises=(ValueError, ArithmeticError))(lambda value: test(value) is not False)

    return keep


def is_instant(value):
    "RFC 3339 with a zone, down to nanoseconds."
    if not isinstance(value, str):
        return True
    return bool(INSTANT.fullmatch(value)) and datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))


def whole_between(low, high):
    return lambda v: not isinstance(v, int) or low <= v <= high


# A typed client reads 5 and 5.0 into different types, which JSON Schema does not tell apart
Strict = extend(Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: isinstance(v, int) and not isinstance(v, bool)))

checks("uuid")(lambda v: not isinstance(v, str) or bool(UUID_TEXT.fullmatch(v)))
checks("date-time")(is_instant)
checks("date")(lambda v: not isinstance(v, str) or date.fromisoformat(v))
checks("decimal")(lambda v: not isinstance(v, str) or Decimal(v).is_finite())
checks("int64")(whole_between(-(2**63), 2**63 - 1))
checks("uint64")(whole_between(0, 2**64 - 1))
checks("uint32")(whole_between(0, 2**32 - 1))


def resolved(schema, document, top=True):
    "A schema without references, OpenAPI 3.0's nullable as JSON Schema, objects closed; $comment keeps a component's name."
    if isinstance(schema, list):
        return [resolved(s, document) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name, found = schema["$ref"].rpartition("/")[2], document
        for key in schema["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        return {"$comment": name} | resolved(found, document, top)
    made = {k: v for k, v in schema.items() if k in KEPT}
    if "properties" in schema:
        made["properties"] = {k: resolved(v, document) for k, v in schema["properties"].items()}
    for k in ("items", "additionalProperties", "anyOf", "oneOf"):
        if k in schema:
            made[k] = resolved(schema[k], document)
    if "allOf" in schema:
        made["allOf"] = [resolved(s, document, False) for s in schema["allOf"]]
    if top and ("properties" in schema or "allOf" in schema) and "additionalProperties" not in schema:
        made["unevaluatedProperties"] = False
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if schema.get("nullable") and "enum" in made and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    return made


KEPT = {"type", "enum", "format", "required", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "pattern", "const"}


@dataclass(frozen=True)
class Operation:
    "One path and method of a document."

    document: str  # trading or data
    method: str  # GET …
    template: str  # /v2/orders/{order_id}
    spec: dict = field(hash=False, compare=False, repr=False)
    whole: dict = field(hash=False, compare=False, repr=False)

    @property
    def name(self):
        return f"{self.method} {self.template}"

    def path(self, **values):
        return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], SAMPLES.get(found[1], ["AAAA"])[0]), self.template)

    def parameters(self, where):
        listed = [self._followed(p["$ref"]) if "$ref" in p else p for p in self.spec.get("parameters", ())]
        return [p | {"schema": resolved(p.get("schema", {}), self.whole)} for p in listed if p["in"] == where]

    def _followed(self, reference):
        found = self.whole
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
        return found

    def answer(self, status):
        "The documented answer of a status, or None."
        found = self.spec["responses"].get(str(status))
        return self._followed(found["$ref"]) if found and "$ref" in found else found

    def schema(self, status):
        "The closed JSON Schema of a status, or None when it has no body."
        content = (self.answer(status) or {}).get("content", {}).get("application/json", {})
        return resolved(content["schema"], self.whole) if "schema" in content else None


@cache
def operations():
    "Every operation of both documents."
    if not HERE:
        return ()
    found = []
    for document, name in FILES.items():
        whole = yaml.load((FOLDER / name).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for template, item in whole["paths"].items():
            shared = item.get("parameters", [])
            found += [
                Operation(document, m.upper(), template, item[m] | {"parameters": [*shared, *item[m].get("parameters", [])]}, whole)
                for m in METHODS if m in item
            ]  # fmt: skip
    return tuple(found)


def implemented(operation):
    "The table of the exchange has a route for it."
    return any(verb == operation.method and pattern.fullmatch(operation.path()) for verb, pattern, _ in ROUTES)


def those(has):
    found = [o for o in operations() if implemented(o) is has]
    return [pytest.param(o, id=o.name) for o in found] or [pytest.param(None, marks=pytest.mark.skip(reason="no Alpaca OpenAPI documents"))]


def operation_of(method, path):
    "The operation a request is for: the template with the fewest parameters that fits."
    fits = [o for o in operations() if o.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", o.template), path)]
    return min(fits, key=lambda o: o.template.count("{"), default=None)


# What is wrong with an answer


@dataclass(frozen=True)
class Problem:
    "One way in which an answer does not fit."

    owner: str  # The component of the document, or the operation
    name: str  # The property
    rule: str  # The keyword it breaks
    detail: str = field(compare=False)


def leaves(error):
    "The errors that explain one: of alternatives, those of the one that comes closest."
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        return [error]
    branches = defaultdict(list)
    for inner in error.context:
        branches[inner.schema_path[0]].append(inner)
    closest = min(branches.values(), key=lambda found: (any("activity_type" in e.path for e in found), len(found)))
    return [leaf for e in closest for leaf in leaves(e)]


def owner_of(error, schema, default):
    "The component that holds the property an error is about."
    owner, at, steps = default, schema, list(error.absolute_schema_path)
    last = max((n for n, s in enumerate(steps) if s == "properties"), default=len(steps))
    for n, step in enumerate(steps):
        if n > last:
            break
        if isinstance(at, dict) and "$comment" in at:
            owner = at["$comment"]
        at = at[step]
    return owner


def problems(body, schema, default):
    "Everything in which a body does not fit a schema."
    found = set()
    for error in Strict(schema, format_checker=FORMATS).iter_errors(body):
        for leaf in leaves(error):
            owner = owner_of(leaf, schema, default)
            if leaf.validator in ("unevaluatedProperties", "additionalProperties", "required"):
                owner = leaf.schema.get("$comment", default)
            if leaf.validator in ("unevaluatedProperties", "additionalProperties"):
                known = set(leaf.schema.get("properties", {})).union(*(s.get("properties", {}) for s in leaf.schema.get("allOf", ())))
                found |= {Problem(owner, key, "unknown key", "") for key in leaf.instance if key not in known}
            elif leaf.validator == "required":
                found |= {Problem(owner, key, "required", "") for key in leaf.validator_value if key not in leaf.instance}
            else:
                name = next((str(p) for p in reversed(leaf.absolute_path) if isinstance(p, str)), "")
                found.add(Problem(owner, name, leaf.validator, leaf.message[:160]))
    return found


CODES = {400: {40010000, None}, 401: {40110000, None}, 403: {40310000, 40310100, None}, 404: {40410000, None}, 422: {40010001, 42210000}, 429: {42910000, None}}


def error_problems(operation, status, body):
    "What is wrong with a refusal: a status the broker does not use, or a body its clients cannot read."
    wrong = []
    if status not in CODES:
        wrong.append(Problem(operation.name, str(status), "status", ""))
    if not isinstance(body, dict) or not isinstance(body.get("message"), str) or not body["message"]:
        wrong.append(Problem(operation.name, "message", "error body", str(body)[:160]))
    elif operation.document == "data" and status != 401 and "not part of" not in body["message"] and "code" in body:
        wrong.append(Problem(operation.name, "code", "error body", "errors of the data API carry no code"))
    elif body.get("code") not in CODES.get(status, {body.get("code")}) or (operation.document == "trading" and "code" not in body):
        wrong.append(Problem(operation.name, "code", "error body", f"{status} with {body.get('code')}"))
    if operation.document == "data" and status == 422:
        wrong.append(Problem(operation.name, "422", "status", "the data API answers 400"))
    return wrong


# Where the broker is known to differ from its document: component, property, rule → why, and where that was seen

DEVIATIONS = {
    **{("Account", key, "unknown key"): "sent by the broker, not in the document: notes 3.1 [rec]"
       for key in ("admin_configurations", "crypto_tier", "effective_buying_power", "position_market_value", "user_configurations")},
    ("Order", "subtag", "unknown key"): "sent by the broker, not in the document: notes 3.2 [rec]; in the document's own examples",
    ("Order", "source", "unknown key"): "sent by the broker, not in the document: notes 3.2 [rec]; in the document's own examples",
    ("NonTradeActivities", "date", "format"): "a plain date; so in the document's own example",
    ("NonTradeActivities", "description", "unknown key"): "sent by the broker: its public documentation of activities",
    ("TradingActivities", "type", "enum"): "trade_bust and trade_correct, when a planned fault takes an execution back: the stream has such events, notes 3.3",
    ("TradingActivities", "previous_id", "unknown key"): "the execution that such a fault takes back",
}  # fmt: skip


# The walk

FRIDAY = datetime(2026, 1, 23, 15, 30, tzinfo=NEW_YORK)
PANEL = synthetic_panel(3, 30, date(2025, 10, 1), date(2026, 2, 27))
NAMES = [s for s in PANEL.symbols if fractionable(s) and PANEL.bar(s, FRIDAY.date()).close < 200]
KEYS = {"apca-api-key-id": "k", "apca-api-secret-key": "s"}
NOBODY = str(UUID(int=1))
SAMPLES = {
    "order_id": [NOBODY, "not-a-uuid"], "symbol_or_asset_id": [*NAMES[:2], asset_id(NAMES[0]), "NOPE", NOBODY], "symbol": [NAMES[0], "NOPE"],
    "activity_type": ["FILL", "CSD", "CSW", "JNLC", "DIV", "SPLIT", "TRANS", "NOPE"], "activity_types": ["FILL", "FILL,CSD", "DIV,SPLIT,TRANS", ""],
    "symbols": [NAMES[0], ",".join(NAMES[:3]), f"NOPE,{NAMES[1]}", "NOPE", "", ","], "client_order_id": ["limit-1", "nobody's"],
    "timeframe": ["1Day", "1Min", "5Min", "1Hour", "1D", "1Week", "1Month", "0Min", "nonsense"], "side": ["buy", "sell", "short"],
    "period": ["1D", "1W", "1M", "3M", "1A", "all", "nonsense"], "percentage": ["50", "0", "101", "x"], "qty": ["1", "0", "x"],
    "status": ["active", "inactive", "nonsense"], "asset_class": ["us_equity", "crypto"], "exchange": ["NASDAQ", "NYSE"], "attributes": ["fractional_eh_enabled", "ipo"],
    "after": ["2026-01-23T15:00:00Z", "2026-01-23", "yesterday"], "until": ["2026-01-24T00:00:00Z", "2026-01-24", "tomorrow"],
    "start": ["2026-01-12", "2026-01-12T00:00:00Z", "2026-02-20T00:00:00-05:00", "nonsense"], "end": ["2026-01-22T22:00:00Z", "2026-01-16", "2020-01-01", "nonsense"],
    "date": ["2026-01-23", "2026-01-23T00:00:00Z", "nonsense"], "page_token": ["nonsense", ""], "pnl_reset": ["per_day", "no_reset"],
    "feed": ["sip", "iex"], "before_order_id": [NOBODY], "after_order_id": [NOBODY], "adjustment": ["raw", "split", "dividend", "all", "nonsense"], "asof": ["2026-01-22", "-"],
    "currency": ["USD", "EUR"], "cashflow_types": ["ALL", "CSD,CSW"], "extended_hours": ["true"], "ticktype": ["trade", "quote"], "tape": ["A", "B", "C"],
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    "What came back for one request of the walk."

    operation: Operation
    state: str
    status: int
    request: str
    wrong: frozenset
    documented: bool  # The request held only what the document allows


class Walk:
    "An account that is taken through its states, and everything it answered on the way."

    def __init__(self):
        self.answers, self._known, self.bodies, self.statuses, self.kinds = [], {}, 0, set(), set()
        self.events = {}  # Orders as the stream shows them, and what happened to them
        self.effective = set()  # Operation and optional parameter that changed an answer

    def start(self, moment, state, multiplier=1, events=(), faults=()):
        scenario = Scenario(events=tuple(events), order_faults=tuple(faults))
        self.x, self.state = Exchange(PANEL, 3, moment, Decimal(100_000), multiplier=multiplier, scenario=scenario), state
        self.shell = Shell(self.x, ("k", "s"))

    def ask(self, method, path, body=None, headers=KEYS, documented=True, **query):
        "One request; its answer is checked and kept. (status, data)"
        operation = operation_of(method, path)
        sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        shown = f"{method} {path}" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "") + (f" {sent[:120]!r}" if sent else "")
        try:
            reply = self.shell.answer(method, path, query, sent, headers)
        except Exception as e:  # noqa: BLE001  (a server answers 500; the walk goes on to find more)
            problem = Problem(operation.name, type(e).__name__, "crash", str(e)[:160])
            self.answers.append(Answer(operation, self.state, 500, shown, frozenset({problem}), documented))
            return 500, None
        assert all(reply.headers[f"X-RateLimit-{h}"].isdigit() for h in ("Limit", "Remaining", "Reset")) and reply.headers["X-Request-ID"], shown
        data = json.loads(reply.body) if reply.body else None
        key = (operation, reply.status, reply.body)
        if key not in self._known:
            self._known[key] = frozenset(self.judged(operation, reply.status, data))
        self.answers.append(Answer(operation, self.state, reply.status, shown, self._known[key], documented))
        return reply.status, data

    def judged(self, operation, status, data):
        if status >= 400:
            return error_problems(operation, status, data)
        if operation.answer(status) is None:
            return [Problem(operation.name, str(status), "status", "not documented")]
        schema = operation.schema(status)
        if schema is None:
            return [] if data is None else [Problem(operation.name, "", "body", "none is documented")]
        self.bodies += 1
        found = problems([row for row in data if row.get("status", 200) < 400] if status == 207 else data, schema, operation.name)
        for row in data if status == 207 else ():  # notes 3.6: a failed element carries the error a single request would meet
            if row["status"] >= 400 and "body" in row:
                found |= set(error_problems(operation, row["status"], row["body"]))
        return found

    def sweep(self):
        "Ask every route that only reads, with every documented parameter."
        self.events.update((json.dumps(e["order"]), e["event"]) for e in self.x.events)
        self.statuses |= {o.status for o in self.x.orders.values()}
        self.kinds |= {a[1]["activity_type"] for a in self.x.activities}
        for operation in operations():
            if operation.method == "GET" and implemented(operation):
                plain = None
                for path, query, name, documented in self.requests_of(operation):
                    status, data = self.ask("GET", path, documented=documented, **query)
                    plain = data if plain is None else plain
                    if name and (status >= 400 or data != plain):
                        self.effective.add((operation, name))
                    token = data.get("next_page_token") if isinstance(data, dict) else None
                    if token and self.ask("GET", path, **query, page_token=token)[1] != data:
                        self.effective.add((operation, "page_token"))

    def requests_of(self, operation):
        "Every value of its path, then one optional parameter at a time: path, query, the parameter, whether it is documented."
        needed = {p["name"]: self.values(p)[0][0] for p in operation.parameters("query") if p.get("required")}
        names = [p["name"] for p in operation.parameters("path")]
        for value in self.values({"name": names[0], "schema": {}}) if names else [("", True)]:
            yield operation.path(**dict.fromkeys(names, value[0])), needed, "", True
        for parameter in operation.parameters("query"):
            name = parameter["name"]
            for value, documented in self.values(parameter):
                yield operation.path(), needed | {name: value}, name, documented
            if parameter.get("required"):
                yield operation.path(), {k: v for k, v in needed.items() if k != name}, "", False

    def values(self, parameter):
        "Values of a parameter, and whether the document allows them."
        name, schema = parameter["name"], parameter["schema"]
        if name in ("order_id", "before_order_id", "after_order_id"):
            return [(key, True) for key in self.x.orders] + [(v, False) for v in SAMPLES["order_id"]]
        if "enum" in schema:
            return [(str(v), True) for v in schema["enum"]] + [("nonsense", False)]
        if schema.get("type") == "boolean":
            return [("true", True), ("false", True), ("True", False)]
        if schema.get("type") == "integer":
            top = schema.get("maximum", 500)
            return [(str(v), True) for v in (1, 2, top)] + [(v, False) for v in ("0", str(top + 1), "-1", "1.5", "x", "")]
        return [(v, False) for v in SAMPLES.get(name, ["x"])]

    # what changes the account

    def order(self, symbol=NAMES[0], side="buy", **more):
        body = {"symbol": symbol, "qty": "10", "side": side, "type": "market", "time_in_force": "day"} | more
        return self.ask("POST", "/v2/orders", {k: v for k, v in body.items() if v is not None})[1]

    def wait(self, seconds):
        self.x.advance_by(seconds)

    def price(self, symbol, times=1.0):
        return f"{self.x.market.quote_at(symbol, self.x.now).midpoint * times:.2f}"


def walked():
    "The whole walk."
    walk = Walk()
    empty_account(walk)
    a_day_of_orders(walk)
    over_night(walk)
    flows_and_actions(walk)
    shorts(walk)
    refusals(walk)
    first_day(walk)
    return walk


def empty_account(walk):
    walk.start(FRIDAY, "empty account")
    walk.sweep()
    for path in ("/v2/orders", "/v2/positions"):
        assert walk.ask("DELETE", path)[0] == 207
    walk.start(FRIDAY + timedelta(days=1), "empty account, Saturday")
    walk.sweep()


def a_day_of_orders(walk):
    kinds = ("reject", "no_fill", "partial_then_cancel", "hang_cancel")
    walk.start(FRIDAY.replace(hour=10), "orders", faults=[OrderFault(k, NAMES[n + 4]) for n, k in enumerate(kinds)])
    for n, name in enumerate(NAMES[:9]):
        walk.order(name, client_order_id=f"market-{n}")
    walk.order(NAMES[9], qty=None, notional="250.00")
    walk.order(NAMES[10], qty="0.5")
    low = walk.order(NAMES[11], type="limit", limit_price=walk.price(NAMES[11], 0.5), client_order_id="limit-1", time_in_force="gtc")
    other = walk.order(NAMES[12], type="limit", limit_price=walk.price(NAMES[12], 0.5))
    walk.order(NAMES[13], type="stop", stop_price=walk.price(NAMES[13], 1.5))
    walk.order(NAMES[14], type="stop_limit", stop_price=walk.price(NAMES[14], 1.5), limit_price=walk.price(NAMES[14], 1.6), time_in_force="gtc")
    early = walk.order(NAMES[15], type="limit", limit_price=walk.price(NAMES[15], 0.5), extended_hours=True)
    walk.state = "orders just sent"
    walk.sweep()
    walk.wait(0.6)
    walk.state = "orders at work"
    walk.sweep()
    walk.wait(3)
    walk.ask("PATCH", f"/v2/orders/{low['id']}", {"qty": "12", "limit_price": walk.price(NAMES[11], 0.4), "client_order_id": "limit-2"})
    walk.ask("DELETE", f"/v2/orders/{early['id']}")
    walk.state = "a replacement and a cancel under way"
    walk.sweep()
    walk.ask("PATCH", f"/v2/orders/{low['id']}", {"qty": "13"})
    walk.ask("DELETE", f"/v2/orders/{low['id']}")
    walk.ask("DELETE", f"/v2/orders/{early['id']}")
    walk.wait(3)
    walk.state = "orders done, positions held"
    walk.sweep()
    for key in (low["id"], early["id"], NOBODY, "not-a-uuid"):
        walk.ask("DELETE", f"/v2/orders/{key}")
        walk.ask("PATCH", f"/v2/orders/{key}", {"qty": "14"})
    for body in ({}, {"qty": "0"}, {"qty": "10"}, {"limit_price": "1.234"}, {"time_in_force": "ioc"}, {"notional": "5"}, {"qty": "x"}, b"[", {"trail": "1"}):
        walk.ask("PATCH", f"/v2/orders/{other['id']}", body)
    close_positions(walk)


def close_positions(walk):
    walk.order(NAMES[0], side="sell", type="limit", qty="4", limit_price=walk.price(NAMES[0], 2.0))
    walk.wait(1)
    for key, query in ((NAMES[1], {"qty": "1"}), (NAMES[2], {"percentage": "50"}), (asset_id(NAMES[3]), {}), (NAMES[0], {}), ("NOPE", {}), (NOBODY, {})):
        walk.ask("DELETE", f"/v2/positions/{key}", **query)
    for query in ({"qty": "0"}, {"qty": "x"}, {"qty": "1", "percentage": "1"}, {"percentage": "0"}, {"percentage": "101"}, {"qty": "1000"}):
        walk.ask("DELETE", f"/v2/positions/{NAMES[1]}", **query)
    walk.wait(2)
    walk.state = "one position held for an order"
    closed = walk.ask("DELETE", "/v2/positions")[1]
    assert {c["status"] for c in closed} == {200, 403}, closed
    walk.ask("DELETE", "/v2/orders")
    walk.sweep()
    walk.wait(1)
    walk.ask("DELETE", "/v2/positions", cancel_orders="true")
    walk.wait(2)
    walk.sweep()


def over_night(walk):
    walk.start(FRIDAY, "before the close")
    walk.order(NAMES[0], type="limit", limit_price=walk.price(NAMES[0], 0.5))
    walk.order(NAMES[1], type="limit", limit_price=walk.price(NAMES[1], 0.5), time_in_force="gtc")
    walk.order(NAMES[2])
    walk.x.advance_to(FRIDAY.replace(hour=18))
    walk.state = "after the close"
    walk.order(NAMES[3])
    walk.order(NAMES[4], type="limit", limit_price="1.00", extended_hours=True)
    walk.wait(1)
    walk.sweep()
    walk.ask("DELETE", f"/v2/positions/{NAMES[2]}")
    walk.ask("DELETE", "/v2/orders")
    walk.wait(5)
    walk.x.advance_to(FRIDAY + timedelta(days=4))
    walk.state = "two sessions later"
    walk.sweep()


def flows_and_actions(walk):
    held, noon = NAMES[:2], FRIDAY.replace(hour=12)
    monday = date(2026, 1, 26)
    events = [
        Split(held[0], monday, Decimal(2)), Dividend(held[1], monday, Decimal("0.25")), Flow(noon + timedelta(hours=1), "CSD", Decimal("500.00")),
        Flow(noon + timedelta(hours=2), "CSW", Decimal("100.00")), Flow(noon + timedelta(hours=3), "JNLC", Decimal("-5.00")),
        Halt(NAMES[5], noon, noon + timedelta(hours=1)),
    ]  # fmt: skip
    walk.start(noon, "halt", events=events, faults=[OrderFault("bust", NAMES[6]), OrderFault("correct", NAMES[7])])
    for name in (*held, *NAMES[5:8]):
        walk.order(name)
    walk.wait(10)
    walk.sweep()
    walk.x.advance_to(datetime(2026, 1, 26, 10, 0, tzinfo=NEW_YORK))
    walk.state = "flows, a split and a dividend behind"
    walk.sweep()
    shown = walk.ask("GET", "/v2/account/activities", page_size="2")[1]
    walk.ask("GET", "/v2/account/activities", page_size="2", page_token=shown[-1]["id"])


def shorts(walk):
    walk.start(FRIDAY.replace(hour=11), "margin", multiplier=2)
    walk.ask("PATCH", "/v2/account/configurations", {"no_shorting": False, "trade_confirm_email": "none"})
    for body in ({}, {"max_margin_multiplier": "1"}, {"max_margin_multiplier": "9"}, {"suspend_trade": "yes"}, {"nonsense": 1}, b"", b"{", b"[]"):
        walk.ask("PATCH", "/v2/account/configurations", body)
    walk.ask("PATCH", "/v2/account/configurations", {"max_margin_multiplier": "2"})
    walk.order(NAMES[0], side="sell")
    walk.wait(3)
    walk.state = "a short position"
    walk.sweep()
    walk.order(NAMES[1], side="sell", qty="0.5")
    walk.ask("DELETE", f"/v2/positions/{NAMES[0]}", percentage="50")
    walk.wait(3)
    walk.ask("DELETE", "/v2/positions", cancel_orders="true")
    walk.ask("PATCH", "/v2/account/configurations", {"suspend_trade": True})
    walk.order(NAMES[2])


def refusals(walk):
    walk.start(FRIDAY, "refusals")
    specs = next(o for o in operations() if o.name == "POST /v2/orders").whole["components"]["schemas"]
    for key, component in (("type", "OrderType"), ("time_in_force", "TimeInForce"), ("order_class", "OrderClass"), ("side", "OrderSide"), ("position_intent", "PositionIntent")):
        for value in (*specs[component]["enum"], "nonsense", 5, None, ["buy"]):
            walk.order(NAMES[1], **{key: value} | ({"limit_price": "1.00"} if value == "limit" else {}))
    for more in (
        {"symbol": "NOPE"}, {"symbol": None}, {"qty": None}, {"qty": "-1"}, {"qty": "0"}, {"notional": "5"}, {"qty": "1e6"}, {"qty": "NaN"}, {"qty": None, "notional": "0.5"},
        {"type": "limit"}, {"type": "limit", "limit_price": "1.001"}, {"type": "limit", "limit_price": "0"}, {"type": "stop"}, {"side": "sell"}, {"client_order_id": "x" * 129},
        {"extended_hours": True}, {"qty": "0.5", "time_in_force": "gtc"}, {"limit_price": "5"}, {"qty": 1.5, "client_order_id": "number"}, {"legs": []}, {"trail_price": "1"},
        {"client_order_id": "twice"}, {"client_order_id": "twice"},
    ):  # fmt: skip
        walk.order(**{"symbol": NAMES[0]} | more)
    walk.order(NAMES[0], side="sell", type="limit", limit_price="1.00")
    for body in (b"", b"{", b"[]", b"null", b'"text"', b"\xff"):
        walk.ask("POST", "/v2/orders", body)
    for operation in operations():
        if implemented(operation):
            for headers in ({}, {"apca-api-key-id": "k", "apca-api-secret-key": "wrong"}):
                assert walk.ask(operation.method, operation.path(), headers=headers)[0] == 401, operation.name


def first_day(walk):
    walk.start(datetime(2025, 10, 1, 9, 0, tzinfo=NEW_YORK), "nothing has traded yet")
    walk.sweep()
    walk.order(NAMES[0])
    walk.start(datetime(2025, 10, 1, 9, 45, tzinfo=NEW_YORK), "the first morning")
    walk.sweep()


@pytest.fixture(scope="module")
def walk():
    return walked()


# The tests


@needs_documents
@pytest.mark.parametrize("operation", those(True))
def test_every_answer_fits_the_document(walk, operation):
    answers = [a for a in walk.answers if a.operation is operation]
    assert answers, "the walk never came here"
    assert any(a.status < 300 for a in answers), Counter(a.status for a in answers)
    unexplained = {p: a for a in answers for p in a.wrong if (p.owner, p.name, p.rule) not in DEVIATIONS}
    assert not unexplained, "\n".join(f"{p} | {a.status} {a.request} ({a.state})" for p, a in unexplained.items())


@needs_documents
def test_every_known_deviation_is_still_needed(walk):
    met = {(p.owner, p.name, p.rule) for a in walk.answers for p in a.wrong}
    assert not set(DEVIATIONS) - met, "no answer needs these entries any more"


@needs_documents
def test_what_a_document_allows_is_answered_or_refused_as_not_simulated(walk):
    "A value from a documented list of choices may be refused only with a message that says so."
    bad = {}
    for operation, state in ((o, "empty account") for o in operations() if o.method == "GET" and implemented(o)):
        for a in walk.answers:
            if a.operation is operation and a.state == state and a.documented and a.status in (400, 422):
                bad[a.request] = a.status
    assert not bad


@needs_documents
def test_the_stream_shows_orders_as_the_document_has_them(walk):
    schema = operation_of("POST", "/v2/orders").schema(200)
    wrong = {p: what for order, what in walk.events.items() for p in problems(json.loads(order), schema, "stream") if (p.owner, p.name, p.rule) not in DEVIATIONS}
    assert not wrong
    assert {"new", "fill", "partial_fill", "canceled", "expired", "rejected", "replaced"} <= set(walk.events.values())


# Parameters that are read and change nothing, because there is nothing for them to choose from

IGNORED = {
    "nested": "only simple orders exist, no order has legs", "asof": "a symbol is never renamed", "currency": "everything is in USD",
    "intraday_reporting": "one point a session", "extended_hours": "one point a session", "pnl_reset": "only for timeframes below a day",
    "feed": "one feed, chosen by the scenario", "tape": "one tape",
}  # fmt: skip


@needs_documents
def test_every_documented_parameter_does_something(walk):
    idle = {}
    for operation in (o for o in operations() if o.method == "GET" and implemented(o)):
        names = {p["name"] for p in operation.parameters("query")} - {name for o, name in walk.effective if o is operation}
        idle |= {operation.name: sorted(names - set(IGNORED))} if names - set(IGNORED) else {}
    assert not idle


@needs_documents
def test_the_walk_meets_every_order_status_the_exchange_knows(walk):
    folder = Path(__file__).parent.parent / "v23" / "simulator"
    source = "".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in ("account", "book", "rules", "trading"))
    words = next(o for o in operations() if o.document == "trading").whole["components"]["schemas"]["OrderStatus"]["enum"]
    assert walk.statuses == {w for w in words if f'"{w}"' in source}
    assert {"FILL", "CSD", "CSW", "JNLC", "SPLIT", "DIV"} <= walk.kinds


@needs_documents
def test_the_walk_meets_every_documented_success_and_every_kind_of_refusal(walk):
    met = defaultdict(set)
    for a in walk.answers:
        met[a.operation].add(a.status)
    for operation in (o for o in operations() if implemented(o)):
        good = {int(s) for s in operation.spec["responses"] if s.isdigit() and int(s) < 300}
        assert good <= met[operation], operation.name
        assert 401 in met[operation], operation.name
    assert {400, 401, 403, 404, 422} <= set().union(*met.values())


@needs_documents
def test_every_route_of_the_exchange_is_in_a_document():
    for verb, pattern, _ in ROUTES:
        assert any(o.method == verb and pattern.fullmatch(o.path()) for o in operations()), (verb, pattern.pattern)


@needs_documents
def test_what_is_not_part_of_the_simulation_says_so():
    missing = [o for o in operations() if not implemented(o)]
    with SimulatorServer(Exchange(PANEL, 3, FRIDAY)) as server, requests.Session() as session:
        session.trust_env = False
        for operation in missing:
            reply = session.request(operation.method, server.url + operation.path(), headers=KEYS, json={}, timeout=5)
            assert reply.status_code == 404, (operation.name, reply.status_code)
            assert reply.headers["content-type"] == "application/json" and "not part of the simulation" in reply.json()["message"], operation.name
    print(f"\n{len(operations()) - len(missing)} of {len(operations())} documented operations are part of the simulation")


def not_implemented():
    "Paths that the simulation does not have, with their methods."
    found = defaultdict(list)
    for o in operations():
        if not implemented(o):
            found[o.template].append(o.method)
    return dict(found)


def table_of(paths):
    "The same as Markdown."
    return "\n".join(("| not part of the simulation | methods |", "|---|---|", *(f"| `{p}` | {', '.join(m)} |" for p, m in paths.items())))


def table_in(text):
    "Paths and methods of such a table, or None when there is none."
    _, found, rest = text.partition("| not part of the simulation | methods |")
    rows = re.findall(r"^\| `(/[^`]+)` \| ([A-Z, ]+) \|$", rest, re.MULTILINE)
    return {path: methods.split(", ") for path, methods in rows} if found else None


@needs_documents
def test_the_list_of_what_is_not_part_of_the_simulation_is_complete():
    root, listed = Path(__file__).parent.parent, {}
    for page in (*root.glob("nbs/**/[!.]*.ipynb"), *root.glob("*.md"), *root.glob("docs/**/*.md")):
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        listed |= table_in(text) or {}
    if not listed:
        pytest.skip("no page has the table yet: python tests/test_simulator_contract.py prints it")
    assert listed == not_implemented()


# The checker is checked


def found(body, schema, **components):
    document = {"components": {"schemas": components}}
    return {(p.owner, p.name, p.rule) for p in problems(body, resolved(schema, document), "here")}


def test_the_conversion_follows_openapi():
    page = {"type": "object", "required": ["token"], "properties": {"token": {"type": "string", "nullable": True}}}
    assert not found({"token": None}, page) and not found({"token": "t"}, page)
    assert found({"token": 5}, page) == {("here", "token", "type")} and found({}, page) == {("here", "token", "required")}
    choice = {"type": "string", "nullable": True, "enum": ["a"]}
    assert not found(None, choice) and found("b", choice) == {("here", "", "enum")}
    order = {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "at": {"type": ["string", "null"], "format": "date-time"}}}
    many = {"type": "array", "items": {"$ref": "#/components/schemas/Order"}}
    assert not found([{"id": NOBODY, "at": None}, {"at": "2026-01-23T20:30:00.123456789Z"}], many, Order=order)
    assert found([{"id": "x"}], many, Order=order) == {("Order", "id", "format")}
    for at in ("2026-01-23", "2026-01-23T20:30:00", "2026-13-23T20:30:00Z", "yesterday"):
        assert found([{"at": at}], many, Order=order) == {("Order", "at", "format")}, at
    assert found(5.0, {"type": "integer"}) == {("here", "", "type")} and not found(5, {"type": "number"})
    assert found([{"surprise": 1}], many, Order=order) == {("Order", "surprise", "unknown key")}


def test_the_conversion_follows_openapi_in_combinations():
    a, b = ({"type": "object", "required": ["k"], "properties": {"k": {"enum": [k]}, f"{k}2": {"type": "integer"}}} for k in "ab")
    either = {"anyOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}]}
    assert not found({"k": "b", "b2": 1}, either, A=a, B=b)
    assert found({"k": "b", "b2": "x"}, either, A=a, B=b) == {("B", "b2", "type")}
    both = {"allOf": [{"type": "object", "properties": {"s": {"type": "string"}}}, {"$ref": "#/components/schemas/A"}]}
    assert not found({"s": "x", "k": "a", "a2": 1}, both, A=a)
    assert found({"s": "x", "k": "a", "z": 1}, both, A=a) == {("here", "z", "unknown key")}
    assert not found({"any": 1.5}, {"type": "object", "additionalProperties": {"type": "number"}})
    assert found({"any": "x"}, {"type": "object", "additionalProperties": {"type": "number"}}) == {("here", "any", "type")}


@needs_documents
def test_a_planted_fault_is_found():
    x = Exchange(PANEL, 3, FRIDAY)
    operation = operation_of("GET", "/v2/account")
    account = json.loads(x.handle("GET", "/v2/account", {}).body)
    for change, expected in (({"cash": 5.0}, ("Account", "cash", "type")), ({"status": "HAPPY"}, ("Account", "status", "enum")), ({"id": None}, ("Account", "id", "type")), ({"cahs": "1"}, ("Account", "cahs", "unknown key"))):
        wrong = {(p.owner, p.name, p.rule) for p in problems(account | change, operation.schema(200), operation.name)}
        assert expected in wrong and expected not in DEVIATIONS, wrong
    assert {p.rule for p in error_problems(operation, 418, {"code": 1, "message": "m"})} == {"status"}
    assert error_problems(operation, 404, {"code": 40410000}) and error_problems(operation, 422, {"code": 40310000, "message": "m"})
    assert not error_problems(operation, 422, {"code": 42210000, "message": "m"})
    assert operation_of("GET", f"/v2/orders/{NOBODY}").template == "/v2/orders/{order_id}"
    assert operation_of("GET", "/v2/stocks/bars/latest").template == "/v2/stocks/bars/latest"


def test_the_table_survives_the_way_there_and_back():
    paths = {"/v2/watchlists": ["GET", "POST"], "/v2/x:by_name": ["PUT"]}
    assert table_in("text\n\n" + table_of(paths) + "\n\nmore") == paths and table_in("nothing") is None


if __name__ == "__main__":
    print(table_of(not_implemented()))
