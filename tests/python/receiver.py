"""Receiver of the real-payload test: verifies each delivery with PyPI's `standardwebhooks` and
appends one JSON line per request to a report. Usage: receiver.py SECRET REPORT
Prints its port first."""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook

secret, report = sys.argv[1:]
webhook = Webhook(secret)
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        error = None
        try:
            webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except Exception as cause:  # the library raises several kinds
            error = f"{type(cause).__name__}: {cause}"
        line = {
            "id": self.headers.get("webhook-id", ""),
            "sha256": hashlib.sha256(body).hexdigest(),
            "verified": error is None,
            "error": error,
        }
        with lock, open(report, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        self.send_response(204 if error is None else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
