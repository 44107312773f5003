"""Servers on this machine that stores are read from, and that count what they are asked."""

import contextlib
import http.server
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Asked:
    """Requests a server answered: (method, path, range header, bytes sent)."""

    requests: list = field(default_factory=list)

    def clear(self):
        self.requests.clear()

    def of(self, ending, method="GET"):
        return [r for r in self.requests if r[0] == method and r[1].endswith(ending)]

    @property
    def n_bytes(self):
        return sum(r[3] for r in self.requests if r[0] == "GET")


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def s3_server():
    """Give the address of moto's S3 server, and what it is asked."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *args):
            pass

    asked, backend = Asked(), DomainDispatcherApplication(create_backend_app)

    def application(environ, start_response):
        body = list(backend(environ, start_response))
        about = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE"))
        asked.requests.append((*about, sum(map(len, body))))
        return body

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}", asked


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves files below `folder`, ranges of them too; `failures` requests are refused first."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        server, wanted = self.server, self.headers.get("Range")
        if server.failures:
            server.failures -= 1
            self.reply(503, b"busy", {}, body)
            return
        path = Path(server.folder) / self.path.lstrip("/")
        if not path.is_file():
            self.reply(404, b"", {}, body)
            return
        data = path.read_bytes()
        status, about = 200, {"Accept-Ranges": "bytes"}
        if wanted and server.knows_ranges:
            first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted).groups()
            start = int(first) if first else max(0, len(data) - int(last))
            stop = int(last) + 1 if first and last else len(data)
            about["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            status, data = 206, data[start:stop]
        if body:
            server.asked.requests.append(("GET", self.path, wanted, len(data)))
        self.reply(status, data, about, body)

    def reply(self, status, data, about, body):
        self.send_response(status)
        for name, value in about.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def http_server(folder):
    """Give a server whose `url` shows a folder, and which counts in `asked`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    server.folder, server.failures, server.knows_ranges, server.asked = folder, 0, True, Asked()
    server.url = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield server
