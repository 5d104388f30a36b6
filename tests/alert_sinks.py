"Mail, SMS and push services on this machine, which can be down, slow, picky or busy."

import base64
import json
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult


def certificate(folder: Path) -> tuple[Path, Path]:
    "A certificate for 127.0.0.1 that nobody has signed, and its key."
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


class Mailbox:
    "What arrived, and what the server says instead of taking it."

    def __init__(self):
        self.messages, self.refuse, self.delay_s, self.tried = [], [], 0.0, 0

    async def handle_DATA(self, server, session, envelope):
        import asyncio

        self.tried += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.refuse:
            return self.refuse.pop(0)
        self.messages.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"

    @property
    def subjects(self) -> list[str]:
        return [str(m["subject"]) for m in self.messages]


class _Controller(Controller):
    def __init__(self, *args, tls=None, **kwargs):
        self.tls = tls
        super().__init__(*args, **kwargs)

    def factory(self):
        return SMTP(self.handler, tls_context=self.tls, require_starttls=bool(self.tls), **self.SMTP_kwargs)


@contextmanager
def mail_server(password: str = "", starttls: tuple[Path, Path] | None = None, port: int = 0):
    "(mailbox, port) of a mail server; with a password only for user desk@example.com."
    import socket

    if not port:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
    context = None
    if starttls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, starttls))

    def check(server, session, envelope, mechanism, data):
        ok = data.login == b"desk@example.com" and data.password == password.encode()
        return AuthResult(success=ok, handled=ok)

    box = Mailbox()
    options = {"authenticator": check, "auth_required": True, "auth_require_tls": bool(starttls)} if password else {}
    controller = _Controller(box, hostname="127.0.0.1", port=port, tls=context, **options)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


class Web:
    "Requests that arrived, and the statuses given before 200."

    def __init__(self):
        self.requests, self.statuses, self.delay_s, self.tried = [], [], 0.0, 0


@contextmanager
def web_server(token: str = ""):
    "(web, address) of a service that takes POST (form or JSON) and GET; with a token only with that basic password."
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bytes) -> None:
            web.tried += 1
            time.sleep(web.delay_s)
            auth = self.headers.get("Authorization", "")
            given = base64.b64decode(auth.removeprefix("Basic ")).decode().partition(":")[2] if auth else ""
            status = web.statuses.pop(0) if web.statuses else 401 if token and given != token else 201 if self.command == "POST" else 200
            if status < 300:
                text = body.decode()
                web.requests.append((self.path, json.loads(text) if text.startswith("{") else {k: v[0] for k, v in parse_qs(text).items()}))
            told = json.dumps({"message": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_POST(self):
            self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def do_GET(self):
            self.answer(b"")

        def log_message(self, *args): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield web, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def wait_for(condition, seconds: float = 15.0) -> bool:
    "True as soon as a condition holds; False when it never does in this time."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
