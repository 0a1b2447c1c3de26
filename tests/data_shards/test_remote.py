"""Shards behind real servers on loopback that fail, stall, cut short and corrupt: right in the end, or named."""

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import boto3
import pytest
from moto.server import ThreadedMotoServer

from data_shards import open as opening
from data_shards.config import DataConfig, TextConfig
from data_shards.manifest import Manifest
from data_shards.remote import RemoteFolder
from data_shards.storage_config import RemoteConfig

TextShards = Callable[..., Manifest]
TAR, INDEX = "/train/000001.tar", "/train/000001.idx"


class Server:
    """Serves a folder; `faults[path]` has what goes wrong with the next requests for it, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self._server.owner = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(SimpleHTTPRequestHandler):
    """Gives files, or what the server's list of faults says."""

    def do_GET(self) -> None:
        owner = self.server.owner  # type: ignore[attr-defined]
        owner.requests[self.path] += 1
        fault = owner.faults[self.path].pop(0) if owner.faults[self.path] else ""
        if not fault:
            super().do_GET()
            return
        if fault == "fails":
            self.send_error(500)
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        if fault == "corrupts":
            content = content[:600] + bytes([content[600] ^ 1]) + content[601:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if fault == "corrupts" else content[: len(content) // 2])
        if fault == "stalls":
            owner.ended.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, text_shards: TextShards) -> Path:
    text_shards(tmp_path / "data", [20, 17, 23], "train")
    return tmp_path / "data"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        yield server


@pytest.fixture
def remote(tmp_path: Path) -> RemoteConfig:
    return RemoteConfig(str(tmp_path / "cache"), timeout_seconds=0.5, deadline_seconds=5.0, fetch_ahead_batches=2)


def run_config(url: str, remote: RemoteConfig) -> DataConfig:
    return DataConfig(url, text=TextConfig(num_bytes=12), lanes=4, window=8, remote=remote)


def keys(config: DataConfig) -> list[tuple[str, ...]]:
    with opening.train_loader(config, seed=0, global_batch=12) as loader:
        return [loader(step).keys for step in range(5)]


def cached(remote: RemoteConfig) -> set[str]:
    return {path.name for path in (Path(remote.cache_folder) / "perceiver-shards").iterdir() if path.suffix != ".lock"}


def test_batches_are_those_of_the_folder_with_one_request_a_file(
    folder: Path, server: Server, remote: RemoteConfig
) -> None:
    assert keys(run_config(server.url, remote)) == keys(run_config(str(folder), remote))
    assert set(server.requests.values()) == {1}
    assert len(server.requests) == 7  # manifest, three tars, three indexes
    keys(run_config(server.url, remote))
    assert sum(server.requests.values()) == 8  # all but the manifest came from the cache


@pytest.mark.parametrize("fault", ["fails", "stalls", "cuts short", "corrupts"])
@pytest.mark.parametrize("path", [TAR, INDEX])
def test_a_fault_that_passes_is_waited_out(
    folder: Path, server: Server, remote: RemoteConfig, fault: str, path: str
) -> None:
    server.faults[path] = [fault, fault]
    assert keys(run_config(server.url, remote)) == keys(run_config(str(folder), remote))
    assert server.requests[path] == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("fails", "500"), ("stalls", "Timeout"), ("cuts short", "Payload"), ("corrupts", "its sha256 is")],
)
def test_a_fault_that_stays_ends_at_the_deadline_and_leaves_nothing(
    server: Server, remote: RemoteConfig, fault: str, reason: str
) -> None:
    server.faults[TAR] = [fault] * 1000
    config = run_config(server.url, replace(remote, timeout_seconds=0.1, deadline_seconds=0.5))
    with pytest.raises(ValueError, match=rf"000001\.tar: not fetched in 0.5 s and \d+ attempts \(.*{reason}"):
        keys(config)
    split = RemoteFolder(server.url, remote).manifest().split("train")
    good = {entry.sha256 for entry in split.shards[::2]} | {entry.index_sha256 for entry in split.shards}
    assert cached(remote) <= good


def test_a_missing_shard_is_named_at_once(folder: Path, server: Server, remote: RemoteConfig) -> None:
    (folder / "train/000001.tar").unlink()
    with pytest.raises(ValueError, match=r"000001\.tar: is not there, but the manifest lists it"):
        keys(run_config(server.url, remote))


def test_a_missing_index_is_made_from_the_tar(folder: Path, server: Server, remote: RemoteConfig) -> None:
    (folder / "train/000001.idx").unlink()
    assert len(keys(run_config(server.url, remote))) == 5


def test_shards_come_ahead_of_their_batches(server: Server, remote: RemoteConfig) -> None:
    config = run_config(server.url, replace(remote, fetch_ahead_batches=100))
    with opening.train_loader(config, seed=0, global_batch=12) as loader:
        loader(0)
    assert {path for path in server.requests if path.endswith(".tar")} == {f"/train/00000{n}.tar" for n in range(3)}


def test_what_is_needed_for_a_url_is_asked_for(server: Server, remote: RemoteConfig) -> None:
    with pytest.raises(ValueError, match=r"needs data\.remote\.cache_folder"):
        keys(run_config(server.url, RemoteConfig()))
    with pytest.raises(ValueError, match="not from pipe://"):
        keys(run_config("pipe://cat", remote))


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's S3 server that holds the folder."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in [("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")]:
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="shards")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        client.upload_file(str(path), "shards", f"digits/{path.relative_to(folder)}")
    yield "s3://shards/digits"
    client.close()
    server.stop()


def test_an_object_store_serves_the_same_batches(folder: Path, bucket: str, remote: RemoteConfig) -> None:
    remote = replace(remote, timeout_seconds=10.0)
    assert keys(run_config(bucket, remote)) == keys(run_config(str(folder), remote))


def test_an_object_that_was_replaced_is_never_served(bucket: str, remote: RemoteConfig) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket="shards", Key=f"digits{TAR}", Body=b"other")
    client.close()
    remote = replace(remote, timeout_seconds=10.0, deadline_seconds=4.0)
    with pytest.raises(ValueError, match=r"s3://shards/digits/train/000001\.tar: not fetched .* its sha256 is"):
        keys(run_config(bucket, remote))


def test_a_missing_object_is_named(bucket: str, remote: RemoteConfig) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.delete_object(Bucket="shards", Key=f"digits{TAR}")
    client.close()
    with pytest.raises(ValueError, match=r"000001\.tar: is not there, but the manifest lists it"):
        keys(run_config(bucket, replace(remote, timeout_seconds=10.0)))
