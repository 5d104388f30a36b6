"""Two more of Alpaca's own clients on the loopback server, unmodified: only address and keys are given to them.

They are not installed with this project; each test says how to let it run.

    python -m venv legacy && legacy/bin/pip install alpaca-trade-api
    V23_LEGACY_PYTHON=legacy/bin/python pytest tests/test_simulator_clients.py
    npm install @alpacahq/alpaca-trade-api
    V23_NODE_MODULES=node_modules pytest tests/test_simulator_clients.py
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import pytest

from v23.market_calendar import NEW_YORK
from v23.simulator.account import fractionable
from v23.simulator.exchange import Exchange
from v23.simulator.server import SimulatorServer
from v23.synthetic_market import synthetic_panel

NOON = datetime(2026, 1, 23, 12, 0, tzinfo=NEW_YORK)
PANEL = synthetic_panel(3, 12, date(2025, 12, 1), date(2026, 2, 27))
ONE, TWO, LAST = sorted((s for s in PANEL.symbols if fractionable(s)), key=lambda s: PANEL.bar(s, NOON.date()).close)[:3]


@pytest.fixture
def server():
    with SimulatorServer(Exchange(PANEL, 3, NOON), keys=("key", "secret")) as made:
        yield made


def answer_of(command, script, server, tmp_path, **environment):
    "Run a client's script against the server; the JSON object it prints last."
    file = tmp_path / ("client.cjs" if "node" in Path(command).name else "client.py")
    file.write_text(script, encoding="utf-8")
    known = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
    done = subprocess.run(
        [command, str(file), server.url, ONE, TWO], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=known | {"APCA_API_KEY_ID": "key", "APCA_API_SECRET_KEY": "secret", "NO_PROXY": "127.0.0.1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(said, server):
    "What both clients were told is what the exchange knows."
    x = server.exchange
    assert said["account"] == ["ACTIVE", "100000", "USD"]
    assert said["clock"] == [True, "2026-01-23T16:00:00-05:00"]
    assert said["calendar"] == [["2025-12-23", "16:00"], ["2025-12-24", "13:00"], ["2025-12-26", "16:00"]]
    assert said["assets"] == len(PANEL.symbols) and said["asset"] == [ONE, True]
    assert said["refused"] == [404, 422, 403]
    statuses = {k: said["orders"][k] for k in ("market", "limit", "replaced", "canceled", "notional", "stop")}
    assert statuses == {"market": "filled", "limit": "replaced", "replaced": "canceled", "canceled": "canceled", "notional": "filled", "stop": "canceled"}
    assert said["chain"] and said["open"] == 2 and said["all"] == 7 and said["found"] == "market"
    assert said["position"] == [ONE, "10", "long"] and sorted(said["positions"]) == [ONE, TWO]
    assert said["closed"] == [200, 200] and said["left"] == 0 and not x.holdings and not x.open_orders
    rows = [PANEL.bar(ONE, date(2026, 1, d)) for d in (20, 21, 22)]
    assert said["bars"] == [["2026-01-20", rows[0].close], ["2026-01-21", rows[1].close], ["2026-01-22", rows[2].close]]
    assert said["two"] == {ONE: 3, TWO: 3}
    for what in ("quote", "quotes"):
        assert 0 < said[what][0] < said[what][1], what
    assert rows[2].close * 0.5 < said["trade"] < rows[2].close * 2 and said["snapshot"] == rows[2].close
    assert said["history"][0] == 100_000 and said["history"][1] >= 1
    fills = [a for _, a in x.activities if a["activity_type"] == "FILL"]
    assert said["fills"] == len({a["id"] for a in fills}) == len(fills)
    assert said["events"] == [[e["event"], e["order"]["client_order_id"]] for e in x.events[: len(said["events"])]] and len(said["events"]) >= 8
    assert {"new", "fill", "canceled", "replaced"} <= {e for e, _ in said["events"]}


# alpaca-trade-api for Python, which alpaca-py replaced

LEGACY = '''
import json, sys, threading, time, urllib.request

url, one, two = sys.argv[1:]
import os
os.environ["APCA_API_DATA_URL"] = url
import alpaca_trade_api as old
from alpaca_trade_api.common import URL
from alpaca_trade_api.rest import APIError, TimeFrame
from alpaca_trade_api.stream import TradingStream

api, said, events = old.REST(base_url=URL(url)), {}, []


def wait(seconds):
    asked = urllib.request.Request(url + "/sim/advance", json.dumps({"seconds": seconds}).encode())
    asked.add_header("APCA-API-KEY-ID", "key"), asked.add_header("APCA-API-SECRET-KEY", "secret")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked).read()


def status_of(call):
    try:
        call()
    except APIError as e:
        return e.status_code


stream = TradingStream("key", "secret", URL(url))
listening = threading.Event()


async def handler(update):
    events.append([update.event, update.order["client_order_id"]])


stream.subscribe_trade_updates(handler)
import asyncio
threading.Thread(target=lambda: asyncio.run(stream._run_forever()), daemon=True).start()
deadline = time.monotonic() + 15
while not stream._running and time.monotonic() < deadline:
    time.sleep(0.01)
assert stream._running, "the trade updates stream did not connect"
time.sleep(0.3)

account, clock = api.get_account(), api.get_clock()
said["account"] = [account.status, account.cash, account.currency]
said["clock"] = [clock.is_open, clock.next_close.isoformat()]
said["calendar"] = [[str(d.date)[:10], str(d.close)[:5]] for d in api.get_calendar("2025-12-23", "2025-12-26")]
said["assets"] = len(api.list_assets("active", "us_equity"))
said["asset"] = [api.get_asset(one).symbol, api.get_asset(api.get_asset(one).id).tradable]
said["refused"] = [status_of(lambda: api.get_asset("NOPE")), status_of(lambda: api.submit_order(one, qty=0)), status_of(lambda: api.submit_order(one, qty=1, side="sell"))]

price = api.get_latest_trade(one).p
orders = {"market": api.submit_order(one, qty=10, client_order_id="market")}
wait(5)
orders["notional"] = api.submit_order(two, notional=100, client_order_id="notional")
wait(5)
orders["limit"] = api.submit_order(one, 2, "buy", "limit", "gtc", limit_price=round(price / 2, 2), client_order_id="limit")
orders["stop"] = api.submit_order(two, 1, "buy", "stop", "day", stop_price=round(api.get_latest_trade(two).p * 2, 2), client_order_id="stop")
wait(1)
orders["replaced"] = api.replace_order(orders["limit"].id, qty="3", limit_price=round(price / 3, 2), client_order_id="replaced")
wait(1)
said["open"] = len(api.list_orders())
orders["canceled"] = api.submit_order(one, 1, "buy", "limit", "day", limit_price=round(price / 2, 2), client_order_id="canceled")
wait(1)
api.cancel_order(orders["canceled"].id)
wait(1)
said["found"] = api.get_order_by_client_order_id("market").client_order_id
position = api.get_position(one)
said["position"] = [position.symbol, position.qty, position.side]
said["positions"] = [p.symbol for p in api.list_positions()]
api.cancel_all_orders()
wait(1)
orders["partly"] = api.close_position(one, qty=4)
wait(3)
said["closed"] = [p.status for p in api.close_all_positions()]
wait(3)
said["left"] = len(api.list_positions())
said["orders"] = {k: api.get_order(o.id).status for k, o in orders.items()}
said["chain"] = api.get_order(orders["replaced"].id).replaces == orders["limit"].id and api.get_order(orders["limit"].id).replaced_by == orders["replaced"].id
said["all"] = len(api.list_orders(status="all", limit=500, direction="asc", nested=True)) - 2

said["bars"] = [[str(b.t)[:10], b.c] for b in api.get_bars(one, TimeFrame.Day, "2026-01-20", "2026-01-22")]
said["two"] = {s: sum(b.S == s for b in api.get_bars([one, two], TimeFrame.Day, "2026-01-20", "2026-01-22")) for s in (one, two)}
assert len(api.get_bars(one, TimeFrame.Day, "2026-01-20", "2026-01-22").df) == 3
quote, quotes = api.get_latest_quote(one), api.get_latest_quotes([one, two])
said["quote"], said["quotes"] = [quote.bp, quote.ap], [quotes[two].bp, quotes[two].ap]
said["trade"], said["snapshot"] = api.get_latest_trade(one).p, api.get_snapshots([one, two])[one].prev_daily_bar.c
assert api.get_snapshot(one).daily_bar.c and api.get_latest_bar(one).c and api.get_latest_bars([one])[one].c
said["fills"] = len(api.get_activities("FILL", page_size=100))
assert len(api.get_activities()) == said["fills"]
wait(20_000)
history = api.get_portfolio_history(period="1M", timeframe="1D")
said["history"] = [history.base_value, len(history.equity)]
deadline = time.monotonic() + 10
while len(events) < 15 and time.monotonic() < deadline:
    time.sleep(0.05)
said["events"] = events
print(json.dumps(said, default=str))
os._exit(0)
'''


def legacy_python():
    "A Python that has the old client, or a skip that says how to get one."
    chosen = os.environ.get("V23_LEGACY_PYTHON") or sys.executable
    probe = subprocess.run([chosen, "-c", "import alpaca_trade_api"], capture_output=True, timeout=60)
    if probe.returncode:
        pytest.skip("V23_LEGACY_PYTHON names no Python with alpaca-trade-api")
    return chosen


def test_the_legacy_python_client_trades_unmodified(server, tmp_path):
    check(answer_of(legacy_python(), LEGACY, server, tmp_path, APCA_RETRY_MAX="0"), server)


# @alpacahq/alpaca-trade-api for JavaScript

NODE = """
const { trading, marketData, streaming, OrdersApi, TimeFrame, ApiError } = require('@alpacahq/alpaca-trade-api');
const [url, one, two] = process.argv.slice(2);
const said = {}, events = [], orders = {};
const keys = { keyId: 'key', secret: 'secret', basePath: url };
const config = new trading.Configuration(keys), data = new marketData.StockApi(new marketData.Configuration(keys));
const api = new OrdersApi(config), positions = new trading.PositionsApi(config), assets = new trading.AssetsApi(config);

const wait = async (seconds) => {
  const headers = { 'content-type': 'application/json', 'APCA-API-KEY-ID': 'key', 'APCA-API-SECRET-KEY': 'secret' };
  const reply = await fetch(url + '/sim/advance', { method: 'POST', headers, body: JSON.stringify({ seconds }) });
  if (!reply.ok) throw new Error(await reply.text());
};
const statusOf = async (call) => { try { await call(); } catch (e) { if (e instanceof ApiError) return e.status; throw e; } };
const day = (t) => new Date(t).toISOString().slice(0, 10);
const cents = (v) => Math.round(v * 100) / 100;

const main = async () => {
  const stream = new streaming.TradingStream({ credentials: { keyId: 'key', secret: 'secret' }, url: url.replace('http', 'ws') + '/stream' });
  const listening = new Promise((done, failed) => {
    stream.on(streaming.EVENT.SUBSCRIPTION, done);
    stream.on(streaming.EVENT.CLIENT_ERROR, failed);
  });
  stream.onTradeUpdate((u) => events.push([u.event, u.order.clientOrderId ?? u.order.client_order_id]));
  stream.subscribeTradeUpdates();
  stream.connect();
  await listening;

  const account = await new trading.AccountsApi(config).getAccount();
  said.account = [account.status, account.cash, account.currency];
  const clock = await new trading.ClockApi(config).legacyClock();
  said.clock = [clock.isOpen, new Date(clock.nextClose).getTime() === Date.parse('2026-01-23T21:00:00Z') ? '2026-01-23T16:00:00-05:00' : String(clock.nextClose)];
  const days = await new trading.CalendarApi(config).legacyCalendar({ start: new Date('2025-12-23'), end: new Date('2025-12-26') });
  said.calendar = days.map((d) => [day(d.date), d.close]);
  said.assets = (await assets.getV2Assets({ status: 'active', assetClass: 'us_equity' })).length;
  const asset = await assets.getV2AssetsSymbolOrAssetId({ symbolOrAssetId: one });
  said.asset = [asset.symbol, (await assets.getV2AssetsSymbolOrAssetId({ symbolOrAssetId: asset.id })).tradable];
  said.refused = [
    await statusOf(() => assets.getV2AssetsSymbolOrAssetId({ symbolOrAssetId: 'NOPE' })),
    await statusOf(() => api.market({ symbol: one, qty: '0', side: 'buy' })),
    await statusOf(() => api.market({ symbol: one, qty: 1, side: 'sell' })),
  ];

  const last = async (symbol) => (await data.stockLatestTradeSingle({ symbol })).trade.p;
  const price = await last(one);
  orders.market = await api.market({ symbol: one, qty: 10, side: 'buy', clientOrderId: 'market' });
  await wait(5);
  orders.notional = await api.market({ symbol: two, notional: 100, side: 'buy', clientOrderId: 'notional' });
  await wait(5);
  orders.limit = await api.limit({ symbol: one, qty: 2, side: 'buy', limitPrice: cents(price / 2), timeInForce: 'gtc', clientOrderId: 'limit' });
  orders.stop = await api.stop({ symbol: two, qty: 1, side: 'buy', stopPrice: cents((await last(two)) * 2), clientOrderId: 'stop' });
  await wait(1);
  orders.replaced = await api.patchOrderByOrderId({ orderId: orders.limit.id, patchOrderRequest: { qty: '3', limitPrice: String(cents(price / 3)), clientOrderId: 'replaced' } });
  await wait(1);
  said.open = (await api.getAllOrders()).length;
  orders.canceled = await api.limit({ symbol: one, qty: 1, side: 'buy', limitPrice: cents(price / 2), clientOrderId: 'canceled' });
  await wait(1);
  await api.deleteOrderByOrderID({ orderId: orders.canceled.id });
  await wait(1);
  said.found = (await api.getOrderByClientOrderId({ clientOrderId: 'market' })).clientOrderId;
  const position = await positions.getOpenPosition({ symbolOrAssetId: one });
  said.position = [position.symbol, position.qty, position.side];
  said.positions = (await positions.getAllOpenPositions()).map((p) => p.symbol);
  await api.deleteAllOrders();
  await wait(1);
  orders.partly = await positions.deleteOpenPosition({ symbolOrAssetId: one, qty: 4 });
  await wait(3);
  said.closed = (await positions.deleteAllOpenPositions({ cancelOrders: true })).map((c) => c.status);
  await wait(3);
  said.left = (await positions.getAllOpenPositions()).length;
  const now = {};
  for (const [name, order] of Object.entries(orders)) now[name] = await api.getOrderByOrderID({ orderId: order.id });
  said.orders = Object.fromEntries(Object.entries(now).map(([name, o]) => [name, o.status]));
  said.chain = now.replaced.replaces === orders.limit.id && now.limit.replacedBy === orders.replaced.id;
  said.all = (await api.getAllOrders({ status: 'all', limit: 500, direction: 'asc', nested: true })).length - 2;

  const range = { timeframe: '1Day', start: new Date('2026-01-20T05:00:00Z'), end: new Date('2026-01-22T22:00:00Z') };
  said.bars = (await data.stockBarSingle({ symbol: one, ...range })).bars.map((b) => [day(b.t), b.c]);
  const both = (await data.stockBars({ symbols: `${one},${two}`, ...range })).bars;
  said.two = Object.fromEntries(Object.entries(both).map(([s, rows]) => [s, rows.length]));
  const quote = (await data.stockLatestQuoteSingle({ symbol: one })).quote, quotes = (await data.stockLatestQuotes({ symbols: `${one},${two}` })).quotes;
  said.quote = [quote.bp, quote.ap]; said.quotes = [quotes[two].bp, quotes[two].ap];
  said.trade = await last(one);
  said.snapshot = (await data.stockSnapshots({ symbols: `${one},${two}` }))[one].prevDailyBar.c;
  if (!(await data.stockSnapshotSingle({ symbol: one })).dailyBar.c) throw new Error('no daily bar');
  if (!(await data.stockLatestBarSingle({ symbol: one })).bar.c) throw new Error('no latest bar');
  const activities = new trading.AccountActivitiesApi(config);
  said.fills = (await activities.getAccountActivitiesByActivityType({ activityType: 'FILL', pageSize: 100 })).length;
  if ((await activities.getAccountActivities({})).length !== said.fills) throw new Error('activities differ');
  await wait(20000);
  const history = await new trading.PortfolioHistoryApi(config).getAccountPortfolioHistory({ period: '1M', timeframe: '1D' });
  said.history = [history.baseValue, history.equity.length];
  for (let n = 0; n < 200 && events.length < 15; n++) await new Promise((done) => setTimeout(done, 50));
  said.events = events;
  stream.disconnect?.();
  console.log(JSON.stringify(said));
  process.exit(0);
};
main().catch((e) => { console.error(e); process.exit(1); });
"""


def node_modules():
    "The folder that holds the JavaScript client, or a skip that says how to get one."
    folder = Path(os.environ.get("V23_NODE_MODULES") or "node_modules").absolute()
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (folder / "@alpacahq" / "alpaca-trade-api").is_dir():
        pytest.skip("V23_NODE_MODULES names no folder with @alpacahq/alpaca-trade-api")
    return folder


def test_the_javascript_client_trades_unmodified(server, tmp_path):
    check(answer_of(shutil.which("node"), NODE, server, tmp_path, NODE_PATH=str(node_modules())), server)
