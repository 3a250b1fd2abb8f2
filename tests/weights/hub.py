"""A Hugging Face Hub on this machine: what its client needs to download one file."""

import collections
import contextlib
import hashlib
import http.server
import threading


@contextlib.contextmanager
def serving(files, commit):
    """Serves files by their repository, and yields a `Hub`.

    Args:
        files: Repositories to the content of their `model.safetensors`. It may be changed later.
        commit: The commit that every repository's `main` is at.
    """
    hub = Hub(files, commit)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), hub.handler())
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Hub:
    """What is served.

    Attributes:
        endpoint: Its address.
        requests: How often each path was asked for.
        damage: A function from a file's content to what is sent in its place.
    """

    def __init__(self, files, commit):
        self.files, self.commit = files, commit
        self.requests = collections.Counter()
        self.damage = lambda content: content

    def handler(self):
        """The class that answers this hub's requests."""
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self._answer(with_body=False)

            def do_GET(self):
                self._answer(with_body=True)

            def _answer(self, with_body):
                hub.requests[f"{self.command} {self.path}"] += 1
                repository, _, rest = self.path.strip("/").partition("/resolve/")
                revision, _, name = rest.partition("/")
                known = revision in ("main", hub.commit) and name == "model.safetensors"
                if not known or repository not in hub.files:
                    self.send_error(404)
                    return
                content = hub.files[repository]
                sent = hub.damage(content)
                self.send_response(200)
                self.send_header("X-Repo-Commit", hub.commit)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("Content-Length", str(len(sent if with_body else content)))
                self.end_headers()
                if with_body:
                    self.wfile.write(sent)

            def log_message(self, *_):
                pass

        return Handler
