#!/usr/bin/env python
"""What the dashboard costs: first paint, bytes, memory, and how much later the trading loop ticks while it is under load.

    scripts/bench_dashboard.py [--seconds 10] [--rate 500] [--json]

A simulated desk is made in a temporary folder, a dashboard serves it, and this program is its clients. The loop's tick is
that of a process which every 50 ms records an event in a ledger of its own and hands it to the live view; its lateness
without load is measured in the same run, beside that with load. What was aimed at and missed is said at the end: paint
under 0.5 s and 300 kB a page, 150 MB, a tick less than 200 ms later.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

HERE = Path(__file__).parent.parent
TICK_S = 0.05
PAGES = ("/", "/positions", "/orders", "/risk", "/quality", "/validation", "/jobs", "/alerts", "/desk-health", "/reports")


def make_desk(folder: Path) -> None:
    "Two sessions of a simulated account."
    subprocess.run([sys.executable, "-m", "v23.cli", "campaign", "--sessions", "2", "--state", str(folder / "state"), "--reports", str(folder / "reports")], check=True, capture_output=True)


def serve(folder: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    "A dashboard and what it announced."
    process = subprocess.Popen([sys.executable, "-m", "v23.cli", "dashboard", "--port", "0", "--state", str(folder / "state"), "--reports", str(folder / "reports"), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told, line = "", ""
    assert process.stdout is not None
    while line != "}\n":
        line = process.stdout.readline()
        told += line
    return process, json.loads(told)


def ticking(folder: str, seconds: float) -> None:
    "The loop: how late each tick was, in milliseconds, as JSON on stdout."
    from v23.adapters.ledger import Ledger
    from v23.adapters.live_view import LiveView
    from v23.adapters.state_folder import real_clock
    from v23.settings import load_settings

    ledger = Ledger(Path(folder) / "state" / "execution" / "ledger.sqlite3", real_clock())
    view = LiveView(ledger, Path(folder) / "state", load_settings("/nonexistent", environ={}), {"mode": "simulated"}, {})
    due, late, until = time.monotonic() + TICK_S, [], time.monotonic() + seconds
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        ledger.record("heartbeat", {"n": len(late)})
        late.append(max(0.0, time.monotonic() - due) * 1000)
        due += TICK_S
    view.close()
    print(json.dumps(late))


def lateness(folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, "--tick", str(folder), "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)


def summary(process: subprocess.Popen[str]) -> dict[str, float]:
    late = sorted(json.loads(process.communicate()[0]))
    return {"median_ms": round(statistics.median(late), 2), "p99_ms": round(late[int(0.99 * (len(late) - 1))], 2), "worst_ms": round(late[-1], 2), "ticks": len(late)}


async def ask(reader: Any, writer: Any, host: str, path: str, cookie: str) -> int:
    "One request on a connection that stays open; its status."
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(re.search(rb"content-length: (\d+)", head).group(1)))  # type: ignore[union-attr]
    return int(head[9:12])


async def sign_in(host: str, password: str) -> str:
    body = urlencode({"password": password})
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    head = (await reader.read()).decode()
    writer.close()
    return re.search(r"set-cookie: (v23_session=[^;]+)", head).group(1)  # type: ignore[union-attr]


async def load(host: str, cookie: str, rate: int, seconds: float, streams: int = 20) -> dict[str, Any]:
    "Twenty pages open, and so many requests a second."
    open_pages = []
    for _ in range(streams):
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(f"GET /events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
        open_pages.append((reader, writer))
    took: list[float] = []
    statuses: dict[int, int] = {}
    started = time.monotonic()

    async def client(number: int, clients: int) -> None:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        for n in range(number, int(rate * seconds), clients):
            await asyncio.sleep(max(0.0, started + n / rate - time.monotonic()))
            if time.monotonic() > started + seconds + 5:
                break
            began = time.monotonic()
            status = await ask(reader, writer, host, PAGES[n % len(PAGES)], cookie)
            took.append(time.monotonic() - began)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    await asyncio.gather(*(client(n, 16) for n in range(16)))
    spent = time.monotonic() - started
    for _, writer in open_pages:
        writer.close()
    took.sort()
    return {"asked_per_s": rate, "answered_per_s": round(len(took) / spent, 1), "statuses": statuses, "median_ms": round(took[len(took) // 2] * 1000, 1), "p99_ms": round(took[int(0.99 * len(took))] * 1000, 1)}


def rss_mb(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024  # type: ignore[union-attr]


def browser(url: str, password: str) -> dict[str, Any]:
    "Paint and bytes of every page; nothing without a browser."
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return {"skipped": "no chromium"}
    from playwright.sync_api import sync_playwright

    rows: dict[str, Any] = {}
    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
        tab = opened.new_context(viewport={"width": 1440, "height": 900}).new_page()
        tab.goto(url + "/login")
        tab.fill("input[type=password]", password)
        tab.press("input[type=password]", "Enter")
        tab.wait_for_selector("#strip")
        for path in PAGES:
            paints, size = [], 0.0
            for _ in range(5):
                tab.goto(url + path)
                while (at := tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")) is None:  # the page's policy forbids to wait inside it
                    tab.wait_for_timeout(20)
                paints.append(at)
                size = tab.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).filter(e => !e.name.includes('/events')).reduce((s, e) => s + (e.decodedBodySize || 0), 0) / 1024")
            rows[path] = {"first_paint_ms": round(statistics.median(paints)), "kB": round(size)}
        opened.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tick", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.tick:
        ticking(asked.tick, asked.seconds)
        return 0
    os.chdir(HERE)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        make_desk(folder)
        served, told = serve(folder)
        try:
            host, password = told["url"].removeprefix("http://"), told["passwords"]["operator"]
            painted = browser(told["url"], password)
            quiet = summary(lateness(folder, asked.seconds))
            cookie = asyncio.run(sign_in(host, password))
            loop = lateness(folder, asked.seconds + 1)
            time.sleep(0.5)
            answered = asyncio.run(load(host, cookie, asked.rate, asked.seconds))
            busy, memory = summary(loop), rss_mb(served.pid)
        finally:
            served.terminate()
            served.wait(10)
    slow = [p for p, row in painted.items() if isinstance(row, dict) and (row["first_paint_ms"] >= 500 or row["kB"] >= 300)]
    missed = [f"{p} paints late or is large" for p in slow] + [text for wrong, text in (
        (busy["worst_ms"] - quiet["worst_ms"] >= 200, "a tick is 200 ms later"), (memory >= 150, "150 MB or more"), (answered["answered_per_s"] < 0.9 * asked.rate, "fewer answers than questions")) if wrong]  # fmt: skip
    found = {"missed": missed, "pages": painted, "tick_without_load": quiet, "tick_under_load": busy, "load": answered, "rss_mb": round(memory, 1), "worst_tick_ratio": round(busy["worst_ms"] / max(quiet["worst_ms"], 0.01), 2)}
    if asked.json:
        print(json.dumps(found, indent=1))
        return 0
    for path, row in painted.items():
        print(f"  {path:<14} {row}")
    print(f"  load           {answered}\n  tick, quiet    {quiet}\n  tick, loaded   {busy}\n  worst tick under load / without: {found['worst_tick_ratio']}\n  memory after 20 open pages and the load: {found['rss_mb']} MB\n  missed: {', '.join(missed) or 'nothing'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
