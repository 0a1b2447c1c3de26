"""Shards behind real servers on loopback, with a proxy that fails, stalls, cuts short and corrupts: right, or named."""

import errno
import http.client
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from data_shards.building import adoption
from data_shards.config import DataConfig
from data_shards.files import history
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry
from data_shards.loading import streams
from data_shards.modalities.kinds.text import TextConfig
from data_shards.storage import remote_folder
from data_shards.storage.config import DatasetConfig, RemoteConfig
from data_shards.storage.remote_folder import RefusedError, RemoteFolder

TextShards = Callable[..., Manifest]
MANIFEST, TAR, INDEX = "manifest.json", "train/000001.tar", "train/000001.idx"
PASSING = ("500", "503", "is silent", "stalls", "cuts short", "corrupts")
PATIENT_SECONDS, HASTY_SECONDS = 30.0, 0.2
"""Wait for the next bytes; the second where a server that says nothing is to be given up soon."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server; `faults[name]` has what goes wrong with the next answers about that file."""

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = upstream
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Passing(BaseHTTPRequestHandler):
    """Gives the server's answer, or what the proxy's list of faults makes of it."""

    server: Proxy

    def do_GET(self) -> None:
        name = "/".join(self.path.split("/")[-2:]) if "/train/" in self.path else self.path.split("/")[-1]
        self.server.requests[name] += 1
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else ""
        if fault == "is silent":
            self.server.ended.wait()
        elif fault.isdigit():
            self.send_error(int(fault))
        elif fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("to ") or self.path)
            self.end_headers()
        else:
            self._pass_on(fault)

    def _pass_on(self, fault: str) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream)
        path = self.path.replace("000001", "000002") if fault == "is replaced" else self.path
        upstream.request("GET", path, headers=dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == "is a page":
            content = b"<html>".ljust(len(content))
        if fault == "corrupts":
            content = content[:-700] + bytes([content[-700] ^ 1]) + content[-699:]
        self.send_response(answer.status)
        for header, value in answer.getheaders():
            if fault != "never ends" or header.lower() not in ("content-length", "connection"):
                self.send_header(header, value)
        self.end_headers()
        if fault == "never ends":
            with suppress(OSError):  # the other side has gone
                while not self.server.ended.is_set():
                    self.wfile.write(bytes(1 << 16))
            return
        if fault == "trickles":
            with suppress(OSError):  # the other side has gone
                for place in range(len(content)):
                    self.wfile.write(content[place : place + 1])
                    self.server.ended.wait(0.02)
            return
        self.wfile.write(content[: len(content) // 2] if fault in ("stalls", "cuts short") else content)
        if fault == "stalls":
            self.server.ended.wait()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Store:
    """A server behind its proxy."""

    url: str
    proxy: Proxy


class Clock:
    """A clock that goes on only while its owner sleeps: a busy machine misses no deadline."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def monotonic(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        self._seconds += seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_shards: TextShards) -> Path:
    folder = tmp_path_factory.mktemp("data")
    text_shards(folder, [20, 17, 23], "train")
    return folder


@pytest.fixture(scope="module")
def web_server(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def object_store(folder: Path) -> Iterator[str]:
    """Moto's S3 server, with the folder in a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "x")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "x")
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{address}")
        client.create_bucket(Bucket="shards")
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            client.upload_file(str(path), "shards", f"digits/{path.relative_to(folder)}")
        client.close()
        yield address
    server.stop()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    with running(server):
        yield f"127.0.0.1:{server.server_port}"


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["http", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    upstream = request.getfixturevalue("object_store" if request.param == "s3" else "web_server")
    proxy = Proxy(upstream)
    with running(proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield Store("s3://shards/digits" if request.param == "s3" else proxy.url, proxy)
        proxy.ended.set()


@pytest.fixture
def settings(tmp_path: Path) -> RemoteConfig:
    return RemoteConfig(str(tmp_path / "cache"), timeout_seconds=PATIENT_SECONDS, fetch_ahead_batches=2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_folder, "time", Clock())


def run_config(url: str, settings: RemoteConfig) -> DataConfig:
    # One batch ahead: a shard that is refused is asked for by the threads that fetch and by two batches, no more.
    return DataConfig(
        url, inputs={"text": TextConfig(num_bytes=12)}, lanes=4, window=8, prefetch_batches=1, remote=settings
    )


def keys(config: DataConfig) -> list[tuple[str, ...]]:
    with streams.train_loader(config, seed=0, global_batch=12) as loader:
        return [loader(step).keys for step in range(5)]


def cached(settings: RemoteConfig) -> set[str]:
    return {
        path.name for path in (Path(settings.cache_folder) / "perceiver-shards").iterdir() if path.suffix != ".lock"
    }


def entry(folder: Path) -> ShardEntry:
    return manifest.read(folder).split("train").shards[1]


def test_batches_are_those_of_the_folder_with_one_request_a_file(
    folder: Path, store: Store, settings: RemoteConfig
) -> None:
    assert keys(run_config(store.url, settings)) == keys(run_config(str(folder), settings))
    assert set(store.proxy.requests.values()) == {1}
    assert len(store.proxy.requests) == 7  # manifest, three tars, three indexes
    keys(run_config(store.url, settings))
    assert sum(store.proxy.requests.values()) == 8  # all but the manifest came from the cache


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", [MANIFEST, TAR, INDEX])
def test_faults_that_pass_are_waited_out(folder: Path, store: Store, settings: RemoteConfig, name: str) -> None:
    store.proxy.faults[name] = list(PASSING)
    assert keys(run_config(store.url, replace(settings, timeout_seconds=HASTY_SECONDS))) == keys(
        run_config(str(folder), settings)
    )
    # More where the machine is so busy that a good answer is taken for a silent one.
    assert store.proxy.requests[name] >= len(PASSING) + 1
    split = manifest.read(folder).split("train")
    assert cached(settings) == {sha256 for shard in split.shards for sha256 in (shard.sha256, shard.index_sha256)}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "500|Internal Server Error"),
        ("503", "503|Service Unavailable"),
        ("is silent", "Timeout"),
        ("stalls", "Timeout"),
        ("cuts short", "Payload"),
        ("408", "408|Request Timeout"),
        ("429", "429|Too Many Requests"),
    ],
)
def test_a_fault_that_stays_ends_at_the_deadline_and_leaves_nothing(
    folder: Path, store: Store, settings: RemoteConfig, fault: str, reason: str
) -> None:
    store.proxy.faults[TAR] = [fault] * 1000
    timeout = HASTY_SECONDS if "Timeout" in reason else PATIENT_SECONDS
    shards = RemoteFolder(store.url, replace(settings, timeout_seconds=timeout, deadline_seconds=0.5))
    with pytest.raises(ValueError, match=rf"000001\.tar: not fetched in 0.5 s and 3 attempts \(.*({reason})"):
        shards.open(entry(folder))
    # The libraries under it try nothing again by themselves; a busy machine may take a good answer for a silent one.
    if "Timeout" not in reason:
        assert store.proxy.requests[TAR] == 3
    assert cached(settings) == set()


@pytest.mark.parametrize("name", [MANIFEST, TAR])
@pytest.mark.parametrize("status", ["401", "403", "410"])
def test_what_a_server_refuses_is_asked_for_once(store: Store, settings: RemoteConfig, name: str, status: str) -> None:
    store.proxy.faults[name] = [status] * 1000
    with pytest.raises(ValueError, match=rf"{name}: cannot be fetched \(.*; check the URL, the credentials") as refused:
        keys(run_config(store.url, settings))
    assert isinstance(refused.value, RefusedError)
    assert store.proxy.requests[name] <= 3, "whoever needs it asks once"


@pytest.mark.parametrize("store", ["http"], indirect=True)
@pytest.mark.parametrize("name", [MANIFEST, TAR])
@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:text/plain,{}", ""])
def test_a_redirection_to_a_file_or_in_a_circle_is_refused_at_once(
    store: Store, settings: RemoteConfig, name: str, target: str
) -> None:
    store.proxy.faults[name] = [f"to {target}"] * 1000
    with pytest.raises(RefusedError, match=rf"{name}: cannot be fetched \((NonHttpUrl|TooManyRedirects)"):
        keys(run_config(store.url, settings))
    assert store.proxy.requests[name] <= (3 if target else 50), "whoever needs it asks once"


@pytest.mark.usefixtures("clock")
def test_a_user_who_waits_for_a_server_learns_why(
    store: Store, settings: RemoteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    history.tell.cache_clear()
    store.proxy.faults[MANIFEST] = ["503"] * 7
    RemoteFolder(store.url, settings).manifest()
    told = capsys.readouterr().err
    assert told.count("manifest.json: not fetched yet (") == 1


def test_an_index_that_is_forbidden_is_made_from_the_tar(store: Store, settings: RemoteConfig) -> None:
    store.proxy.faults[INDEX] = ["403"] * 1000
    assert len(keys(run_config(store.url, settings))) == 5


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("fault", ["corrupts", "is replaced"])
def test_a_file_that_is_another_one_twice_is_not_asked_for_again(
    folder: Path, store: Store, settings: RemoteConfig, fault: str
) -> None:
    store.proxy.faults[TAR] = [fault] * 1000
    with pytest.raises(
        ValueError, match=r"000001\.tar: (cannot be fetched \((its sha256 is|more than its)|.*Checksum)"
    ):
        RemoteFolder(store.url, replace(settings, deadline_seconds=0.5)).open(entry(folder))
    assert cached(settings) == set()


@pytest.mark.parametrize("name", [TAR, INDEX])
def test_a_transfer_ends_at_the_listed_size(folder: Path, store: Store, settings: RemoteConfig, name: str) -> None:
    store.proxy.faults[name] = ["never ends"] * 1000
    shards = RemoteFolder(store.url, settings)
    if name == TAR:
        with pytest.raises(ValueError, match=r"000001\.tar: cannot be fetched \(more than its \d+ bytes came\)"):
            shards.open(entry(folder))
    else:  # which the tar has as well
        shards.index(entry(folder))
    assert store.proxy.requests[name] == 1


def test_a_url_without_a_manifest_gets_a_sentence(store: Store, settings: RemoteConfig) -> None:
    with pytest.raises(ValueError, match=r"nothing/manifest\.json: not there; `perceiver data index FOLDER` writes"):
        keys(run_config(f"{store.url}/nothing", settings))


@pytest.mark.parametrize("store", ["http"], indirect=True)
def test_a_page_in_place_of_a_manifest_is_no_matter_of_patience(store: Store, settings: RemoteConfig) -> None:
    store.proxy.faults[MANIFEST] = ["is a page"] * 1000
    with pytest.raises(ValueError, match=r"manifest\.json: cannot be fetched"):
        keys(run_config(store.url, settings))
    assert store.proxy.requests[MANIFEST] == 2


def test_a_full_disk_is_no_matter_of_patience(
    folder: Path, store: Store, settings: RemoteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = RemoteFolder(store.url, settings)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards._files, "get_file", full)
    with pytest.raises(ValueError, match=r"000001\.tar: cannot be fetched \(OSError: .*No space left"):
        shards.open(entry(folder))


NAMES = ("part#1", "a?b", "50%41", "with blank", "über", "a+b")


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory, text_shards: TextShards) -> Path:
    """Shards whose names have a meaning in URLs."""
    folder = tmp_path_factory.mktemp("odd")
    text_shards(folder, [3] * len(NAMES), "train")
    for number, name in enumerate(NAMES):
        (folder / f"train/{number:06d}.tar").rename(folder / f"train/{name}.tar")
        (folder / f"train/{number:06d}.idx").unlink()
    adoption.index(folder)
    return folder


def test_names_with_a_meaning_in_urls_are_names(odd_folder: Path, settings: RemoteConfig) -> None:
    with serving(odd_folder) as address:
        found = keys(run_config(f"http://{address}", settings))
    assert found == keys(run_config(str(odd_folder), settings))


def test_a_transfer_that_trickles_ends_at_the_deadline(folder: Path, store: Store, settings: RemoteConfig) -> None:
    store.proxy.faults[TAR] = ["trickles"] * 1000
    with pytest.raises(ValueError, match=r"000001\.tar: not fetched in 0.3 s and 1 attempts \(.*too slow"):
        RemoteFolder(store.url, replace(settings, deadline_seconds=0.3)).open(entry(folder))
    assert cached(settings) == set()


def test_a_missing_shard_is_named_at_once(store: Store, settings: RemoteConfig) -> None:
    store.proxy.faults[TAR] = ["404"] * 1000
    with pytest.raises(ValueError, match=r"000001\.tar: is not there, but the manifest lists it"):
        keys(run_config(store.url, settings))


def test_a_missing_index_is_made_from_the_tar(store: Store, settings: RemoteConfig) -> None:
    store.proxy.faults[INDEX] = ["404"] * 1000
    assert len(keys(run_config(store.url, settings))) == 5


def test_the_cache_keeps_to_its_bound(write_tar: Callable[..., Path], tmp_path: Path, settings: RemoteConfig) -> None:
    for number in range(3):
        write_tar(tmp_path / "large" / "train" / f"{number}.tar", [("a.txt", bytes([65 + number]) * 700_000)])
    listed = adoption.index(tmp_path / "large").split("train").shards
    with serving(tmp_path / "large") as address:
        shards = RemoteFolder(f"http://{address}", replace(settings, cache_mib=1))
        for listed_shard in listed:
            with shards.open(listed_shard) as file:
                assert len(file.read()) == listed_shard.num_bytes
            assert cached(settings) == {listed_shard.sha256}


def test_shards_come_ahead_of_their_batches(store: Store, settings: RemoteConfig) -> None:
    config = run_config(store.url, replace(settings, fetch_ahead_batches=100))
    with streams.train_loader(config, seed=0, global_batch=12) as loader:
        loader(0)
    assert {name for name in store.proxy.requests if name.endswith(".tar")} == {
        f"train/00000{number}.tar" for number in range(3)
    }


def test_shards_behind_a_url_come_ahead_beside_a_dataset_on_this_machine(
    folder: Path, store: Store, settings: RemoteConfig
) -> None:
    config = replace(
        run_config("", replace(settings, fetch_ahead_batches=100)),
        shards="",
        datasets={"a": DatasetConfig(str(folder)), "b": DatasetConfig(store.url)},
    )
    with streams.train_loader(config, seed=0, global_batch=12) as loader:
        loader(0)
    assert len([name for name in store.proxy.requests if name.endswith(".tar")]) == 3


def test_what_is_needed_for_a_url_is_asked_for(settings: RemoteConfig) -> None:
    with pytest.raises(ValueError, match=r"needs data\.remote\.cache_folder"):
        keys(run_config("http://127.0.0.1/shards", RemoteConfig()))
    with pytest.raises(ValueError, match="not from pipe://"):
        keys(run_config("pipe://cat", settings))
