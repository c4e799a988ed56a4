"""A server that ends TLS in front of another one, as an archive's web server does."""

import contextlib
import http.server
import ssl
import threading
import urllib.request


@contextlib.contextmanager
def behind_tls(url, certificate, key):
    """Yields the URL at which requests are taken by HTTPS and handed on to another server.

    Debian's Orthanc 1.10.1 cannot do it itself: with OpenSSL 3 it crashes at the first request.
    """

    class Forward(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = b"".join(self.pieces())
            headers = {name: self.headers[name] for name in ("Content-Type", "Accept")}
            request = urllib.request.Request(url + self.path, data, headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                body, kind = answer.read(), answer.headers["Content-Type"]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def pieces(self):
            length = self.headers["Content-Length"]
            if length:
                yield self.rfile.read(int(length))
            while not length and (size := int(self.rfile.readline(), 16)):  # RFC 9112, 7.1
                yield self.rfile.read(size)
                self.rfile.readline()

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.HTTPServer(("127.0.0.1", 0), Forward) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()
