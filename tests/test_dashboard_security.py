"What the dashboard refuses: F95, F96 and the security checklist, each line a test."

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from starlette.routing import Route
from starlette.testclient import TestClient

from v23.adapters.alert_spool import spooled
from v23.adapters.live_view import write_view
from v23.adapters.snapshots import write_snapshot
from v23.control import ControlServer
from v23.dashboard import access
from v23.dashboard.app import Desk, Serve, build_app, desk_for, patient_protocol
from v23.dashboard.data import OrderReader, by_sector, kill_state, total
from v23.dashboard.report_files import Reports
from v23.errors import InputError
from v23.market_calendar import NEW_YORK

from datetime import datetime

HERE = "http://127.0.0.1"
AT = datetime(2026, 1, 20, 12, tzinfo=NEW_YORK)
PAYLOADS = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '"><svg onload=alert(1)>', "${7*7}{{7*7}}", "javascript:alert(1)", "\u202egnp.exe", "=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "x" * 10_000, "a\r\nSet-Cookie: a=b",
)  # fmt: skip


@pytest.fixture
def place(tmp_path):
    "A state folder with an owner that counts what it is asked, and a dashboard on it."
    state, reports = tmp_path / "state", tmp_path / "reports"
    state.mkdir(mode=0o700)
    reports.mkdir()
    return state, reports


@pytest.fixture
def owner(place):
    "Commands that reached the owner."
    asked: list[tuple[str, str, dict[str, Any]]] = []
    names = ("kill", "cancel_all", "pause_entries", "resume_entries", "deactivate_kill", "acknowledge_alert")
    handlers = {n: (lambda who, fields, n=n: asked.append((n, who, fields)) or {}) for n in names}
    with ControlServer(place[0], handlers):
        yield asked


@pytest.fixture
def desk(place, monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)  # the cost of a password is not what is tested here
    return Desk(*place)


@pytest.fixture
def browser(desk):
    with TestClient(build_app(desk), base_url=HERE) as client:
        yield client


def sign_in(browser: TestClient, desk: Desk, role: str = "operator") -> tuple[str, str]:
    "(password, token of the forms)."
    secret = desk.passwords.create(only=role)[role]
    answer = browser.post("/login", data={"password": secret}, headers={"origin": HERE}, follow_redirects=False)
    assert answer.status_code == 303
    return secret, re.search(r'name="csrf" value="([^"]+)"|value="([^"]+)" name="csrf"', browser.get("/").text).group(1) or re.search(r'value="([^"]+)" name="csrf"', browser.get("/").text).group(1)


def routes(browser: TestClient) -> list[Route]:
    return list(browser.app.app.routes)


def address(route: Route) -> str:
    return re.sub(r"\{[^}]+\}", "kill" if "actions" in route.path else "a" * 20, route.path)


def test_F95_no_route_answers_without_a_session(browser):
    seen = 0
    for route in routes(browser):
        for method in route.methods - {"HEAD"}:
            path = address(route)
            if path in ("/login", "/health") or path.startswith("/assets/"):
                continue
            answer = browser.request(method, path, headers={"origin": HERE}, data={"csrf": ""} if method == "POST" else None)
            assert answer.status_code == 401, (method, path)
            assert "Sign in" in answer.text and "equity" not in answer.text
            seen += 1
    assert seen >= 17


def test_F95_a_route_added_later_is_guarded_without_anybody_remembering(desk):
    from starlette.responses import PlainTextResponse

    guard = build_app(desk)
    guard.app.routes.append(Route("/new", lambda r: PlainTextResponse("open"), methods=["GET", "POST"]))
    with TestClient(guard, base_url=HERE) as client:
        assert client.get("/new").status_code == 401 and client.post("/new", headers={"origin": HERE}).status_code == 401


@pytest.mark.parametrize("name", ["kill", "cancel-all", "pause", "resume", "deactivate", "acknowledge"])
def test_F95_an_action_needs_a_post_with_our_token_from_our_origin(browser, desk, owner, place, name):
    _, token = sign_in(browser, desk)
    path, form = f"/actions/{name}", {"confirm": "KILL", "reason": "x", "id": "1", "csrf": token}
    tries = [
        browser.get(path), browser.head(path), browser.post(path, data=form), browser.post(path, data=form, headers={"origin": "null"}),
        browser.post(path, data=form, headers={"origin": "https://evil.example"}), browser.post(path, data=form, headers={"origin": "http://127.0.0.1.evil.example"}),
        browser.post(path, data=form, headers={"origin": "http://127.0.0.1:9999"}), browser.post(path, data=form, headers={"origin": "https://127.0.0.1"}),
        browser.post(path, data=form | {"csrf": ""}, headers={"origin": HERE}), browser.post(path, data={k: v for k, v in form.items() if k != "csrf"}, headers={"origin": HERE}),
        browser.post(path, data=form | {"csrf": token[:-1] + ("B" if token[-1] == "A" else "A")}, headers={"origin": HERE}), browser.post(path + f"?csrf={token}", data={}, headers={"origin": HERE}),
        browser.post(path, json=form, headers={"origin": HERE}),
    ]  # fmt: skip
    assert [a.status_code for a in tries] == [403] * len(tries)
    assert owner == [] and not (place[0] / "KILL").exists()
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert browser.request(method, path, headers={"origin": HERE}).status_code in (403, 405)


def test_F95_a_kill_with_all_of_it_reaches_the_owner_and_both_diaries(browser, desk, owner, place):
    _, token = sign_in(browser, desk)
    wrong = browser.post("/actions/kill", data={"csrf": token, "confirm": "yes"}, headers={"origin": HERE})
    assert wrong.status_code == 403 and owner == []
    done = browser.post("/actions/kill", data={"csrf": token, "confirm": "KILL", "reason": "drill"}, headers={"origin": HERE, "user-agent": "a test"})
    assert done.status_code == 200 and [(n, f) for n, _, f in owner] == [("kill", {"reason": "drill"})]
    assert owner[0][1].startswith("dashboard operator at ")
    rows = [json.loads(x) for x in (place[0] / "dashboard" / "audit.jsonl").read_text().splitlines()]
    assert [(r["action"], r["outcome"][:3], r["agent"]) for r in rows[-2:]] == [("kill", "403", "testclient"), ("kill", "200", "a test")] and rows[-1]["address"]


def test_F95_a_viewer_cannot_act(browser, desk, owner):
    _, token = sign_in(browser, desk, "viewer")
    for name in ("kill", "cancel-all", "pause", "resume", "deactivate", "acknowledge"):
        assert browser.post(f"/actions/{name}", data={"csrf": token, "confirm": "KILL"}, headers={"origin": HERE}).status_code == 403
    assert owner == [] and "/actions/" not in browser.get("/").text + browser.get("/risk").text + browser.get("/kill").text


def test_F95_what_loosens_a_stop_needs_the_password_a_code_and_a_number_used_once(browser, desk, owner):
    secret, token = sign_in(browser, desk)
    nonce = re.findall(r'name="nonce" value="([^"]+)"|value="([^"]+)" name="nonce"', browser.get("/risk").text)
    number = next(a or b for a, b in nonce)
    form = {"csrf": token, "code": "CONFIRM-20260120", "password": secret, "nonce": number}
    assert browser.post("/actions/deactivate", data=form | {"nonce": "made up"}, headers={"origin": HERE}).status_code == 403
    assert browser.post("/actions/deactivate", data=form, headers={"origin": HERE}).status_code == 200
    assert browser.post("/actions/deactivate", data=form, headers={"origin": HERE}).status_code == 403, "a number is good once"
    assert [n for n, _, _ in owner] == ["deactivate_kill"]
    numbers = [a or b for _ in range(6) for a, b in re.findall(r'name="nonce" value="([^"]+)"|value="([^"]+)" name="nonce"', browser.get("/risk").text)[-1:]]
    codes = [browser.post("/actions/resume", data={"csrf": token, "reason": "x", "password": "wrong", "nonce": n}, headers={"origin": HERE}).status_code for n in numbers]
    assert codes == [403] * 5 + [429] and len(owner) == 1
    assert access.Tries(desk.state).wait_s("testclient") > 800, "a restart does not forget the tries"
    assert secret not in (desk.state / "dashboard" / "audit.jsonl").read_text() and "CONFIRM-" not in (desk.state / "dashboard" / "audit.jsonl").read_text()


def numbers_of(text: str) -> list[str]:
    return [a or b for a, b in re.findall(r'name="nonce" value="([^"]+)"|value="([^"]+)" name="nonce"', text)]


def test_F95_a_page_that_refreshes_itself_does_not_use_up_the_numbers_of_its_form(browser, desk, owner):
    secret, token = sign_in(browser, desk)
    number = numbers_of(browser.get("/risk").text)[-1]
    for _ in range(30):  # a busy desk, for a quarter of a minute
        assert browser.get("/risk", headers={"hx-request": "true"}).status_code == 200
    told = browser.post("/actions/resume", data={"csrf": token, "reason": "x", "password": secret, "nonce": number}, headers={"origin": HERE})
    assert told.status_code == 200 and [n for n, _, _ in owner] == ["resume_entries"]


def test_F95_a_page_that_is_kept_for_many_holds_each_persons_own_token_and_rights(desk, place):
    hostile_state(place[0], f"{desk.marker} fine")
    with TestClient(build_app(desk), base_url=HERE) as one, TestClient(build_app(desk), base_url=HERE) as two, TestClient(build_app(desk), base_url=HERE) as looker:
        time.sleep(0.5)
        _, first = sign_in(one, desk)
        _, second = sign_in(two, desk)
        _, third = sign_in(looker, desk, "viewer")
        for path in ("/", "/risk", "/alerts", "/jobs", "/validation", "/reports", "/desk-health"):
            for _ in range(2):
                mine, other, seen = one.get(path).text, two.get(path).text, looker.get(path).text
                assert first in mine and second in other and first != second, path
                assert first not in other + seen and second not in mine + seen and desk.marker not in mine + other + seen
                assert "/actions/" not in seen and third in seen
        numbers = numbers_of(one.get("/risk").text) + numbers_of(two.get("/risk").text)
        assert len(set(numbers)) == len(numbers) == 4


def test_F95_a_foreign_host_name_is_not_answered(browser, desk):
    sign_in(browser, desk)
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "localhost.evil:80", "169.254.169.254"):
        for path in ("/", "/login", "/health", "/events", "/assets/htmx.min.js"):
            assert browser.get(path, headers={"host": host}).status_code == 421
    assert browser.get("/", headers={"host": "localhost:8787"}).status_code == 200


def test_F95_there_is_no_socket_to_talk_to(browser, desk):
    from starlette.websockets import WebSocketDisconnect

    sign_in(browser, desk)
    for path in ("/", "/events", "/actions/kill"):
        with pytest.raises(WebSocketDisconnect) as refused, browser.websocket_connect(f"ws://127.0.0.1{path}", headers={"origin": "https://evil.example"}):
            pass
        assert refused.value.code == 1008


def test_the_cookie_is_strict_and_ends_with_the_session(browser, desk):
    secret = desk.passwords.create()["operator"]
    told = browser.post("/login", data={"password": secret}, headers={"origin": HERE}, follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in told and "samesite=strict" in told.lower() and "Max-Age" in told
    token = browser.cookies[next(iter(browser.cookies))]
    desk.sessions._kept[desk.sessions._key(token)].began -= access.SESSION_S
    assert browser.get("/").status_code == 401
    sign_in(browser, desk)
    _, again = sign_in(browser, desk)
    old = browser.cookies[next(iter(browser.cookies))]
    browser.post("/logout", data={"csrf": again}, headers={"origin": HERE})
    assert browser.get("/", headers={"cookie": f"v23_session={old}"}).status_code == 401


def test_five_wrong_passwords_lock_an_address_out_also_after_a_restart(browser, desk, place):
    desk.passwords.create()
    codes = [browser.post("/login", data={"password": "guess"}, headers={"origin": HERE}).status_code for _ in range(6)]
    assert codes == [403] * 5 + [429]
    again = Desk(*place)
    with TestClient(build_app(again), base_url=HERE) as other:
        assert other.post("/login", data={"password": again.passwords.create(only="operator")["operator"]}, headers={"origin": HERE}).status_code == 429
    (place[0] / "dashboard" / "tries.json").write_text("not json")
    assert access.Tries(place[0]).wait_s("anyone") > 0, "a damaged count means wait"


def test_a_foreign_page_cannot_sign_somebody_in_and_a_target_stays_here(browser, desk):
    secret = desk.passwords.create()["operator"]
    assert browser.post("/login", data={"password": secret}, headers={"origin": "https://evil.example"}).status_code == 403
    for to in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        answer = browser.post("/login", data={"password": secret, "to": to}, headers={"origin": HERE}, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/"


def test_there_is_no_default_password_and_only_hashes_are_kept(tmp_path):
    state = tmp_path / "state"
    made = access.Passwords(state).create()
    assert len(set(made.values())) == 2 and all(len(p) >= 32 for p in made.values())
    for folder, dirs, files in os.walk(state):
        for name in files:
            path = Path(folder, name)
            assert path.stat().st_mode & 0o077 == 0 and not any(p in path.read_text() for p in made.values())
        assert all(Path(folder, d).stat().st_mode & 0o077 == 0 for d in dirs)
    passwords = access.Passwords(state)
    assert passwords.role_of("") is None and passwords.role_of(made["viewer"] + " ") is None and passwords.role_of(made["viewer"]) == "viewer"
    passwords.path.write_text("{}")
    assert passwords.role_of("") is None
    with pytest.raises(InputError, match="chmod"):
        passwords.path.chmod(0o604)
        passwords.role_of(made["viewer"])
    state.chmod(0o777)
    with pytest.raises(InputError, match="written by anybody"):
        access.Passwords(state)


def test_a_new_password_of_one_role_makes_none_that_nobody_sees(tmp_path):
    made = access.Passwords(tmp_path).create(only="viewer")
    assert list(made) == ["viewer"] and access.Passwords(tmp_path).role_of(made["viewer"]) == "viewer"
    rest = access.Passwords(tmp_path).create()
    assert list(rest) == ["operator"] and access.Passwords(tmp_path).role_of(rest["operator"]) == "operator"


def test_what_a_name_without_a_price_is_worth_is_unknown_and_not_nothing():
    rows = [{"sector": "A", "value": 5.0, "pnl": 1.0}, {"sector": "B", "value": 7.0, "pnl": None}, {"sector": "A", "value": None, "pnl": None}]
    assert (total(rows), total(rows[:2]), total([]), total(rows, "pnl"), total(rows[:1], "pnl")) == (None, 12.0, 0.0, None, 1.0)
    assert by_sector(rows) == {"A": None, "B": 7.0} and list(by_sector(rows[:2])) == ["B", "A"]


def test_only_loopback_without_a_certificate(tmp_path):
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.com", ""):
        with pytest.raises(InputError, match="--certificate"):
            Serve(host=host).check()
        done = subprocess.run([sys.executable, "-m", "v23.cli", "dashboard", "--host", host, "--state", str(tmp_path / "s")], capture_output=True, text=True)
        assert done.returncode == 2 and "--certificate" in done.stderr and not (tmp_path / "s").exists()
    Serve(host="::1").check()


def test_every_answer_carries_the_policies(browser, desk):
    sign_in(browser, desk)
    for path in ("/", "/orders", "/login", "/nowhere", "/health", "/assets/dashboard.js", "/reports/aa/content"):
        h = browser.get(path).headers
        policy = h["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert h["x-content-type-options"] == "nosniff" and h["referrer-policy"] == "same-origin" and h["x-frame-options"] == "DENY"
        assert h["cache-control"] == "no-store" or path.startswith("/assets/")
        assert "server" not in h


def test_pages_name_no_other_machine_and_carry_no_inline_script(browser, desk):
    sign_in(browser, desk)
    for path in ("/", "/positions", "/orders", "/risk", "/quality", "/validation", "/jobs", "/alerts", "/desk-health", "/reports", "/kill"):
        text = browser.get(path).text
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", text) and not re.search(r"\son[a-z]+=", text) and "style=" not in text
        assert all('src="/assets/' in tag for tag in re.findall(r"<script[^>]*>", text))


def test_bodies_are_small_and_forms_readable(browser, desk, owner):
    _, token = sign_in(browser, desk)
    big = browser.post("/actions/pause", content=b"csrf=" + b"x" * 70_000, headers={"origin": HERE, "content-type": "application/x-www-form-urlencoded"})
    lying = browser.post("/actions/pause", content=iter([b"x" * 40_000, b"y" * 40_000]), headers={"origin": HERE})
    bad = browser.post("/actions/pause", content=b"\xff\xfe=1", headers={"origin": HERE})
    many = browser.post("/actions/pause", content="&".join(f"a{n}=1" for n in range(100)).encode(), headers={"origin": HERE})
    assert [big.status_code, lying.status_code, bad.status_code, many.status_code] == [413, 413, 400, 400] and owner == []


def test_a_body_that_never_ends_is_let_go(desk, monkeypatch):
    from v23.dashboard import app

    monkeypatch.setattr(app, "BODY_S", 0.05)
    sent: list[dict[str, Any]] = []

    async def never() -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/login", "headers": [(b"host", b"127.0.0.1"), (b"origin", b"http://127.0.0.1")], "query_string": b"", "client": ("127.0.0.1", 1)}
    asyncio.run(build_app(desk)(scope, never, send))
    assert sent[0]["status"] == 408


def test_more_than_ten_actions_a_minute_are_too_many(browser, desk, owner):
    _, token = sign_in(browser, desk)
    codes = [browser.post("/actions/pause", data={"csrf": token, "reason": "x"}, headers={"origin": HERE}).status_code for _ in range(12)]
    assert codes == [200] * 10 + [429] * 2 and len(owner) == 10


def hostile_state(state: Path, text: str) -> None:
    "Files in which everything a person may read is the payload."
    order = {
        "intent_id": "abc", "session": "2026-01-20", "symbol": text, "side": text, "purpose": text, "quantity": text, "order_type": text, "reference_price": 1.0, "arrival": {"bid": text, "ask": text, "feed": text},
        "checks": [{"name": text, "passed": False, "detail": text, "binding": True}], "refused": text, "detail": text, "planned_at": text, "state": text, "filled": text, "average": text, "slippage_bps": None, "delay_s": None,
        "children": [{"client_order_id": text, "order_id": text, "seq": 0, "quantity": text, "order_type": text, "limit_price": text, "state": text, "filled_quantity": "1", "filled_avg_price": None, "attempts": 1, "reason": text, "sent_at": None, "updated_at": None,
                      "steps": [{"at": AT.isoformat(), "state": text, "filled": "1", "attempts": 1, "reason": text}], "fills": [{"at": AT.isoformat(), "quantity": text, "price": text, "fill_id": text}]}],
    }  # fmt: skip
    live = {
        "desk": {"mode": text, "source": text}, "limits": {}, "real_time": time.time(), "pid": 1, "seen": {"pauses": [text], "positions": [], "at": text, "breaker": "NORMAL"}, "shares": {text: "3"}, "closes": [],
        "latches": {text: {"state": "HALTED", "cause": text, "set_at": text}}, "jobs": [{"name": text, "session": text, "status": text, "at": text, "summary": {text: text}}], "errors": [{"at": text, "kind": text, "code": text, "detail": text}],
        "kills": [], "log": [{"at": text, "kind": text, "text": text, "seq": 1}], "alerts": [], "latest": {}, "quality": {}, "sessions": [], "marks": {text: "1"}, "reconciled": {"stops": [text]},
    }  # fmt: skip
    write_view(state / "monitoring" / "live_state.json", live, 1, AT)
    write_view(state / "monitoring" / "desk_facts.json", {"sectors": {text: text}}, 1, AT)
    write_view(state / "execution" / "orders" / "2026-01-20.json", {"session": "2026-01-20", "orders": [order]}, 1, AT)
    write_snapshot(state / "monitoring" / "alert_history.json", {"alerts": [{"at": text, "code": text, "subject": text, "priority": text, "text": text, "id": text, "delivered": [text], "problem": text}]}, 1, AT)
    write_snapshot(state / "monitoring" / "dashboard_state.json", {"health": [{"component": text, "status": text, "age_s": 1, "detail": text}], "kpis": [{"name": text, "value": 1, "unit": text, "target": text, "grade": text}]}, 1, AT)
    check = {"name": text, "passed": False, "observed": text, "required": text, "evidence": text}
    write_snapshot(state / "paper_validation" / "validation_report.json", {"checks": [check], "decision": {"recommendation": text, "scenario": text, "size_multiplier": 0}, "evidence": {"verdict": text, "reasons": [text]}, "paths": {text: text}}, 1, AT)


@pytest.mark.parametrize("text", PAYLOADS)
def test_F96_whatever_a_file_says_is_text_on_every_page(browser, desk, place, text):
    from html.parser import HTMLParser

    hostile_state(place[0], text)
    (place[1] / "runs").mkdir()
    if len(text) < 200:
        (place[1] / "runs" / f"{text.replace('/', '_')}.html").write_text("x")
    sign_in(browser, desk)
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert tag not in ("img", "object", "embed", "iframe", "base") and not (tag == "script" and not (dict(attrs).get("src") or "").startswith("/assets/"))
            for name, value in attrs:
                assert not name.startswith("on") and name != "style"
                if name in ("href", "src", "action", "hx-get"):
                    assert (value or "").startswith(("/", "#")) and not (value or "").startswith("//"), value

    for path in ("/", "/positions", "/orders", "/orders/abc", f"/orders?q={quote(text[:50])}", "/risk", f"/risk?symbol={quote(text[:50])}&shares=1&price=1", "/quality", "/validation", "/jobs", "/alerts", "/desk-health", "/reports"):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        Tags().feed(answer.text)
        assert "set-cookie" not in answer.headers
    assert "svg" in found or found


@pytest.mark.parametrize("wanted", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "..", "%00", "a%00b", "%2fetc%2fpasswd", "%5c%5chost%5cshare", "....//....//etc/passwd", "link", "a" * 5000, "runs/a.html"])
def test_F96_the_viewer_serves_nothing_but_reports(browser, desk, place, wanted):
    (place[0] / "secret.html").write_text("top secret")
    (place[1] / "link.html").symlink_to(place[0] / "secret.html")
    (place[1] / "up").symlink_to(place[0])
    (place[1] / "runs").mkdir()
    (place[1] / "runs" / "a.html").write_text("fine")
    sign_in(browser, desk)
    for path in (f"/reports/{wanted}", f"/reports/{wanted}/content", f"/assets/{wanted}"):
        answer = browser.get(path)
        assert answer.status_code in (404, 200) and "top secret" not in answer.text and "root:" not in answer.text
        assert answer.status_code == 404 or answer.url.path in ("/", "/reports"), path
    assert [r.name for r in desk.files.all()] == ["runs/a.html"]


def test_F96_a_report_is_served_without_rights_and_a_huge_one_not_at_all(browser, desk, place):
    (place[1] / "ok.html").write_text("<script>parent.location='https://evil.example'</script><svg onload=alert(1)>")
    with open(place[1] / "huge.html", "wb") as f:
        f.truncate(2 * 1024**3)
    sign_in(browser, desk)
    ids = {r.name: r.id for r in desk.files.all()}
    framed = browser.get(f"/reports/{ids['ok.html']}").text
    assert re.search(r'<iframe[^>]* sandbox(="")?[ >]', framed)
    content = browser.get(f"/reports/{ids['ok.html']}/content")
    assert not any(word in content.text for word in ("<script", "onload", "evil.example", "alert"))
    policy = content.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy and "allow-" not in policy and content.headers["x-content-type-options"] == "nosniff"
    began = time.monotonic()
    assert browser.get(f"/reports/{ids['huge.html']}/content").status_code == 404 and time.monotonic() - began < 2


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "<scr<script>ipt>alert(1)</script>", "<img src=x onerror=alert(1)>", "<a href='javascript:alert(1)'>x</a>", "<a href='jav&#x09;ascript:alert(1)'>x</a>", "<svg><script href='data:,alert(1)'/></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg>", "<svg><set attributeName=href to=javascript:alert(1)></svg>", "<svg><foreignObject><iframe srcdoc='<script>alert(1)</script>'></foreignObject></svg>",
    "<iframe src='javascript:alert(1)'></iframe>", "<object data='data:text/html,<script>alert(1)</script>'></object>", "<embed src='javascript:alert(1)'>", "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<math><annotation-xml encoding='text/html'><img src=x onerror=alert(1)></annotation-xml></math>", "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>", "<form action='javascript:alert(1)'><button>x</button></form>",
    "<input onfocus=alert(1) autofocus>", "<details open ontoggle=alert(1)>x</details>", "<base href='javascript:alert(1)//'>", "<link rel=import href='data:text/html,alert(1)'>", "<body onload=alert(1)>", "<template><script>alert(1)</script></template>",
])  # fmt: skip
def test_F96_what_a_report_hides_is_taken_out_before_it_is_served(browser, desk, place, text):
    from html.parser import HTMLParser

    (place[1] / "r.html").write_text(f"<!doctype html><html><body><h1>Kept</h1><table><tr><td>1</td></tr></table>{text}<p>after</p></body></html>")
    sign_in(browser, desk)
    served = browser.get(f"/reports/{desk.files.all()[0].id}/content").text
    assert "<h1>Kept</h1>" in served and "<td>1</td>" in served and (served.count("after") == 1 or "noscript" in text or "<iframe" in text or "<template" in text or "<object" in text)

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "iframe", "object", "embed", "base", "link", "form", "input", "button", "animate", "set", "math", "foreignobject", "template"), tag
            for name, value in attrs:
                assert not name.startswith("on") and name not in ("srcdoc", "formaction", "http-equiv"), name
                assert name not in ("href", "src", "xlink:href") or (value or "").startswith(("#", "data:image/")), value

    Tags().feed(served)


def test_the_plan_of_the_day_says_what_runs_next(browser, desk, place):
    hostile_state(place[0], "fine")
    jobs = [{"name": n, "at": f"2026-01-20T{h}:00-05:00", "until": "2026-01-20T20:00:00-05:00", "needs": [], "state": s} for n, h, s in (("market_open", "09:35", "done"), ("rebalance", "15:30", "next"), ("market_close", "16:01", "planned"))]
    write_view(place[0] / "supervisor" / "schedule.json", {"session": "2026-01-20", "jobs": jobs}, 1, AT)
    sign_in(browser, desk)
    text = browser.get("/jobs").text
    assert "Plan of 2026-01-20" in text and "Next: rebalance at 15:30 New York" in text and text.index("<strong>market open") < text.index("<strong>rebalance") < text.index("<strong>market close")


def test_a_kill_file_that_cannot_be_read_counts_as_killed(place):
    state = place[0]
    path = state / "circuit_breakers" / "kill_switch_state.json"
    assert not kill_state(OrderReader(state))["active"]
    write_snapshot(path, {"active": False, "kill_id": "", "reason": ""}, 1, AT)
    assert not kill_state(OrderReader(state))["active"]
    for damage in ("", "null", "[]", "{", '{"schema": 1, "seq": 1, "sha256": "x", "data": {"active": false}}', '{"a": NaN}', "[" * 100_000, "\ufeff{}"):
        path.write_text(damage)
        assert kill_state(OrderReader(state))["active"], damage[:20]
    path.unlink()
    (state / "KILL").symlink_to("/nonexistent")
    assert kill_state(OrderReader(state))["active"]


def test_damaged_files_become_sentences_and_no_page_falls_over(browser, desk, place):
    hostile_state(place[0], "fine")
    sign_in(browser, desk)
    for name in ("monitoring/live_state.json", "paper_validation/validation_report.json", "monitoring/metrics_state.json"):
        (place[0] / name).write_text('{"schema": 9}')
    time.sleep(1.0)  # a page is kept until the watcher has seen a change
    for path in ("/", "/positions", "/orders", "/risk", "/quality", "/validation", "/jobs", "/alerts", "/desk-health"):
        answer = browser.get(path)
        assert answer.status_code == 200 and "cannot be read" in answer.text, path


def test_a_kill_with_nobody_there_is_latched_and_says_so(browser, desk, place):
    _, token = sign_in(browser, desk)
    told = browser.post("/actions/kill", data={"csrf": token, "confirm": "KILL", "reason": "x"}, headers={"origin": HERE})
    assert [(r["code"], r["priority"]) for r in spooled(place[0])] == [("KILL_SWITCH", "CRITICAL")], "and people are told"
    assert told.status_code == 503 and "nobody is selling" in told.text and (place[0] / "KILL").read_text() == "dashboard x\n" and stat.S_IMODE((place[0] / "KILL").stat().st_mode) == 0o600
    assert browser.post("/actions/cancel-all", data={"csrf": token}, headers={"origin": HERE}).status_code == 503
    assert "EMERGENCY" in browser.get("/").text


def test_the_dashboard_never_opens_the_ledger_and_reads_no_keys(tmp_path):
    "Nothing it imports talks to a broker, and a ledger that is there is left alone."
    state = tmp_path / "state"
    (state / "execution").mkdir(parents=True, mode=0o700)
    ledger = state / "execution" / "ledger.sqlite3"
    ledger.write_text("not to be touched")
    ledger.chmod(0o000)
    code = f"""
import os, sys
os.environ["ALPACA_API_KEY"] = "canary-key"
from pathlib import Path
from starlette.testclient import TestClient
from v23.dashboard.app import Desk, build_app
opened = []
sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e in ("open", "sqlite3.connect") else None)
desk = Desk(Path({str(state)!r}), Path({str(tmp_path / "reports")!r}))
secret = desk.passwords.create()["operator"]
with TestClient(build_app(desk), base_url="http://127.0.0.1") as c:
    c.post("/login", data={{"password": secret}}, headers={{"origin": "http://127.0.0.1"}})
    pages = [c.get(p).text for p in ("/", "/positions", "/orders", "/risk", "/quality", "/validation", "/jobs", "/alerts", "/desk-health", "/reports", "/kill")]
assert not any("canary-key" in p for p in pages)
assert not any("sqlite" in o or o.endswith(".env") for o in opened), opened
bad = [m for m in sys.modules if m.split(".")[0] in ("alpaca", "pandas", "numpy") or m == "v23.adapters.alpaca"]
assert not bad, bad
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_source_has_no_unsafe_reading_and_compares_in_constant_time():
    folder = Path(access.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text()
        for word in ("pickle", "marshal", "yaml.load", "eval(", "exec(", "shell=True", "NotStr", "innerHTML", "Safe("):
            assert word not in text, (path.name, word)
        assert not re.search(r"(password|csrf|nonce|hash)\w*\s*==", text), path.name
    assert ".innerHTML" not in (folder.parent / "assets" / "dashboard.js").read_text()


def test_the_files_of_a_session_are_private(browser, desk, place, owner):
    _, token = sign_in(browser, desk)
    browser.post("/actions/pause", data={"csrf": token, "reason": "x"}, headers={"origin": HERE})
    for path in (place[0] / "dashboard").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_twenty_streams_cost_one_look(desk, place):
    "However many pages are open, the files are looked at by one task."
    looks: list[float] = []
    real = desk.reader.version
    desk.reader.version = lambda: looks.append(time.monotonic()) or real()  # type: ignore[method-assign]

    async def live() -> None:
        watching = asyncio.create_task(desk.watch(0.05))
        await asyncio.sleep(0.5)
        watching.cancel()

    asyncio.run(live())
    assert 2 <= len(looks) <= 12


@contextlib.contextmanager
def listening(app, seconds: float = 0.3, **tls: str):
    "The dashboard on a real socket; its address."
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, http=patient_protocol(seconds), ws="none", log_level="warning", **{f"ssl_{k}": v for k, v in tls.items()}))
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(8)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        try:
            yield door.getsockname()
        finally:
            server.should_exit = True
            thread.join(5)


def test_a_silent_connection_is_let_go(place):
    "A client that connects and says nothing does not hold the server."
    with listening(build_app(Desk(*place))) as address, socket.create_connection(address) as client:
        client.settimeout(5)
        client.sendall(b"GET / HT")  # and never the rest
        assert client.recv(100) == b""


@pytest.mark.parametrize("piece", [1_000, 300_000])
def test_a_head_that_does_not_end_is_let_go_early(place, piece):
    with listening(build_app(Desk(*place)), 30) as address, socket.create_connection(address) as client:
        client.settimeout(5)
        client.sendall(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 30_000_000:
                client.sendall(b"a" * piece)
                sent += piece
        assert sent < 30_000_000
    with listening(build_app(Desk(*place)), 30) as address, socket.create_connection(address) as client:  # one after the other on a connection are each counted anew
        client.settimeout(5)
        for _ in range(4):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 9_000 + b"\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_reports_are_found_again_by_the_same_number(place):
    (place[1] / "a").mkdir()
    (place[1] / "a" / "b.html").write_text("x")
    assert Reports(place[1]).all()[0].id == Reports(place[1]).all()[0].id


def test_a_frame_is_allowed_only_where_the_operator_said_so(place):
    serve = Serve(frames=("http://127.0.0.1:8888",))
    serve.check()
    with TestClient(build_app(desk_for(*place, serve)), base_url=HERE) as client:
        headers = client.get("/login").headers
        assert "frame-ancestors http://127.0.0.1:8888" in headers["content-security-policy"] and "x-frame-options" not in headers
    for bad in ("*", "http://a b", "http://x;script-src *", "https://x/path", "javascript:1", ""):
        with pytest.raises(InputError, match="not an origin"):
            Serve(frames=(bad,)).check()


def test_over_tls_a_browser_signs_in_and_plain_http_gets_nothing(tmp_path):
    "The command itself, with a certificate nobody signed but this test trusts."
    import http.client
    import ssl
    from urllib.parse import urlencode

    from alert_sinks import certificate

    cert, key = certificate(tmp_path)
    command = [sys.executable, "-m", "v23.cli", "dashboard", "--host", "0.0.0.0", "--port", "0", "--certificate", str(cert), "--key", str(key), "--state", str(tmp_path / "state"), "--reports", str(tmp_path), "--json"]
    refused = subprocess.run([*command[:4], "--certificate", str(cert), "--state", str(tmp_path / "none")], capture_output=True, text=True)
    assert refused.returncode == 2 and "belong together" in refused.stderr and not (tmp_path / "none").exists()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as served:
        try:
            assert served.stdout is not None
            facts = json.loads("".join(iter(served.stdout.readline, "}\n")) + "}")
            assert facts["url"].startswith("https://0.0.0.0:")
            port = int(facts["url"].rpartition(":")[2])
            trusted = ssl.create_default_context(cafile=str(cert))
            client = http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=10)
            client.request("GET", "/login")
            assert client.getresponse().read() and client.sock.version() in ("TLSv1.2", "TLSv1.3")
            headers = {"Origin": f"https://127.0.0.1:{port}", "Content-Type": "application/x-www-form-urlencoded"}
            client.request("POST", "/login", urlencode({"password": facts["passwords"]["operator"]}), headers)
            answer = client.getresponse()
            answer.read()
            cookie = answer.headers["set-cookie"]
            assert answer.status == 303 and "Secure" in cookie and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
            client.request("GET", "/", headers={"Cookie": cookie.partition(";")[0]})
            page = client.getresponse()
            assert page.status == 200 and b"Today" in page.read()
            with pytest.raises(ssl.SSLCertVerificationError):
                http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(), timeout=10).request("GET", "/login")
            with pytest.raises((http.client.HTTPException, OSError)):
                plain = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                plain.request("GET", "/login")
                plain.getresponse()
        finally:
            served.terminate()


def test_over_tls_the_cookie_is_secure_and_http_origins_are_foreign(place):
    secure = Desk(*place, secure=True)
    secret = secure.passwords.create()["operator"]
    with TestClient(build_app(secure), base_url="https://127.0.0.1") as client:
        assert client.post("/login", data={"password": secret}, headers={"origin": "http://127.0.0.1"}).status_code == 403
        told = client.post("/login", data={"password": secret}, headers={"origin": "https://127.0.0.1"}, follow_redirects=False)
        assert told.status_code == 303 and "Secure" in told.headers["set-cookie"]
