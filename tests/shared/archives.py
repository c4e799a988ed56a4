"""Archives in threads: one that takes C-STORE, and one that takes STOW-RS."""

import contextlib
import http.server
import threading

from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt


@contextlib.contextmanager
def peer(*, status=lambda uid: 0, title="PACS", port=0, kinds=None, ssl_context=None, callers=()):
    """A DICOM node; gives its name, AE@HOST:PORT, and the UIDs of what was offered to it.

    ``status`` says what it answers, by UID; of "offered", what was answered with 0 has arrived.
    """
    offered = []

    def store(event):
        uid = str(event.request.AffectedSOPInstanceUID)
        offered.append(uid)
        return status(uid)

    entity = AE(title)
    entity.require_called_aet, entity.require_calling_aet = True, list(callers)
    for kind in kinds or (Comprehensive3DSRStorage, SecondaryCaptureImageStorage):
        entity.add_supported_context(kind)
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store)],
        ssl_context=ssl_context,
    )
    try:
        yield f"{title}@127.0.0.1:{server.socket.getsockname()[1]}", offered
    finally:
        server.shutdown()


@contextlib.contextmanager
def web(answer=lambda body: (200, b""), *, ssl_context=None):
    """A web server; gives its URL, and the paths and bodies of what was posted.

    ``answer`` returns status and body, or status, body and headers.
    """
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = b""
            if "Content-Length" in self.headers:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            else:
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            posted.append((self.path, body))
            status, said, *more = answer(body)
            self.send_response(status)
            headers = {"Content-Type": "application/dicom+json", "Content-Length": len(said)}
            for name, value in (headers | (more[0] if more else {})).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if ssl_context:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        scheme = "https" if ssl_context else "http"
        yield f"{scheme}://localhost:{server.server_port}/dicom-web", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
