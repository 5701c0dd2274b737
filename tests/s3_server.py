"""A real S3 server on loopback that counts what it is asked for."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_ANSWER = Callable[..., Iterable[bytes]]


class Counted:
    """An application that counts requests by what they do: LIST, GET, HEAD, PUT, POST, DELETE."""

    def __init__(self, application: _ANSWER) -> None:
        self._application = application
        self.asked: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        lists = environ["REQUEST_METHOD"] == "GET" and "list-type" in environ["QUERY_STRING"]
        self.asked["LIST" if lists else environ["REQUEST_METHOD"]] += 1
        return self._application(environ, start_response)


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Serve an empty bucket `bucket`, for this process and those it starts; yield the counts of requests."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    server = pytest.importorskip("moto.moto_server.werkzeug_app", reason="needs moto[server]")
    import s3fs
    from moto.backends import get_backend
    from werkzeug.serving import make_server

    application = server.DomainDispatcherApplication(server.create_backend_app)
    counted = Counted(application)
    served = make_server("127.0.0.1", 0, counted, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{served.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    for one in get_backend("s3").values():
        one.reset()
    try:
        s3fs.S3FileSystem().mkdir("bucket")
        counted.asked.clear()
        yield counted.asked
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        served.shutdown()
        thread.join()
        served.server_close()
