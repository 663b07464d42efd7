"""S3 servers in the test process, which all hold the same buckets, and a client that finds one of them."""

import functools

import fsspec
from moto.server import ThreadedMotoServer

#: What a client needs; it tries once, so that a server that is gone is noticed at once.
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


def started():
    """Start a server on a free port."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    return server


@functools.cache
def _server():
    return started()


def use(monkeypatch, server=None):
    """Lead s3:// to a server, also in processes that the test starts, and return the file system of fsspec."""
    host, port = (server or _server()).get_host_and_port()
    for name, value in (SETTINGS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    files = type(fsspec.filesystem("s3"))
    files.clear_instance_cache()
    return fsspec.filesystem("s3")
