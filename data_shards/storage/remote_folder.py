"""A shard folder behind an http(s):// or s3:// URL. Whole files are cached and checked by their SHA-256.

    an attempt ends with            then
    the file, and it is right       done
    404                             FileNotFoundError: there is none
    another refusal, a redirection  RefusedError: the next answer would be the same
    to no http(s):// URL or in a
    circle, too many bytes, a full
    disk
    a wrong file                    once more; RefusedError if it is wrong in the same way
    anything else                   again after 0.1, 0.2, 0.4 ... 10 s, until data.remote.deadline_seconds have passed

Each attempt begins at the first byte: what a failed one left is not trusted.
"""

import errno
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import aiohttp
import fsspec
from fsspec.callbacks import Callback

from data_shards.files.display import masked
from data_shards.files.history import tell
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Split
from data_shards.format.tar_index import TarIndex
from data_shards.storage.cache import ShardCache
from data_shards.storage.config import RemoteConfig
from data_shards.storage.local_folder import checked_index

MAX_MANIFEST_BYTES = 1 << 30
"""The maximum size of a manifest: a manifest of a million shards has 170 MB."""
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 10.0
_TOLD_AFTER = 5
"""Failed attempts, the first 1.5 seconds, after which a user who waits learns why."""
_PASSING = frozenset({408, 425, 429})
"""Statuses from 400 to 499 that may pass: timeout, too early, too many requests."""
_LED_ASTRAY = (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL, aiohttp.TooManyRedirects)
"""Redirections to a file, to no URL at all, or in a circle."""
_LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_WITHOUT_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"})
"""botocore's errors before it asks; s3 is an extra, so they have no names here."""


class RefusedError(ValueError):
    """A file that will not come, however often it is asked for."""


class RemoteFolder:
    """A file of a web server or an object store, under a URL."""

    def __init__(self, url: str, config: RemoteConfig) -> None:
        if not config.cache_folder:
            raise ValueError(f"{url} needs data.remote.cache_folder: a folder on a local disk for the fetched shards")
        self._url = url.rstrip("/")
        self._config = config
        self._files = _file_system(self._url, config)
        self._cache = ShardCache(Path(config.cache_folder), config.cache_mib << 20)

    def __reduce__(self) -> tuple[type["RemoteFolder"], tuple[str, RemoteConfig]]:
        # Connections belong to a process.
        return RemoteFolder, (self._url, self._config)

    def __str__(self) -> str:
        return masked(self._url)

    def manifest(self) -> Manifest:
        """Return the manifest, fetched again."""
        with tempfile.TemporaryDirectory() as folder:
            # Never from the cache: it has no hash to be known by, and whoever uploads the shards again changes it in
            # place.
            path = Path(folder) / "manifest.json"
            try:
                self._fetch(
                    "manifest.json", path, lambda path: manifest.parse(path.read_text(), str(self)), MAX_MANIFEST_BYTES
                )
            except FileNotFoundError as error:
                raise ValueError(
                    f"{self}/manifest.json: not there; `perceiver data index FOLDER` writes it for a folder of tars: "
                    "upload it with them, or correct the URL"
                ) from error
            return manifest.parse(path.read_text(), f"{self}/manifest.json")

    def check(self, split: Split) -> None:
        """Do nothing: checking every shard would be one request per shard."""

    def index(self, entry: ShardEntry) -> TarIndex:
        """Return the index next to the tar; if it is missing, one created from the tar."""
        # An index is never longer than its tar, which has 512 bytes of header for each member: the same limit serves
        # for both.
        name = str(Path(entry.name).with_suffix(".idx"))
        # Without the right to list, an object store says of what is missing that it is forbidden.
        try:
            with self._cache.open(
                entry.index_sha256, 0, lambda path: self._fetch_hashed(name, path, entry.index_sha256, entry.num_bytes)
            ) as file:
                content = file.read()
        except (FileNotFoundError, RefusedError):
            # By its descriptor: another process may delete the name from the cache to make room.
            with self.open(entry) as file:
                content = TarIndex.from_tar(Path(f"/proc/self/fd/{file.fileno()}")).to_bytes()
        complaint = f"{self}/{name}: is not the index that the manifest names; index the folder again"
        return checked_index(content, entry, complaint)

    def open(self, entry: ShardEntry) -> BinaryIO:
        """Return the tar, fetched unless it is in the cache."""
        try:
            return self._cache.open(
                entry.sha256,
                entry.num_bytes,
                lambda path: self._fetch_hashed(entry.name, path, entry.sha256, entry.num_bytes),
            )
        except FileNotFoundError as error:
            raise ValueError(f"{self.name(entry)}: is not there, but the manifest lists it; upload it again") from error

    def name(self, entry: ShardEntry) -> str:
        """Return the URL of a shard."""
        return f"{self}/{entry.name}"

    def _fetch_hashed(self, name: str, path: Path, sha256: str, max_bytes: int) -> None:
        def check(path: Path) -> None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise ValueError(f"its sha256 is {found}, the manifest says {sha256}")

        self._fetch(name, path, check, max_bytes)

    def _fetch(self, name: str, path: Path, check: Callable[[Path], object], max_bytes: int) -> None:
        """Fetch a file until `check` takes it; FileNotFoundError where there is none, ValueError past the deadline.

        Raises RefusedError where to ask again would be in vain: the server refuses, has a longer file, or sends what
        `check` refuses twice in the same words.
        """
        # Of all attempts together: a server that always answers a little would otherwise keep a run waiting for days.
        deadline = time.monotonic() + self._config.deadline_seconds
        delay, num_attempts, before = _FIRST_DELAY_SECONDS, 0, ""
        while (error := self._attempt(name, path, check, _Limits(deadline, max_bytes))) is not None:
            num_attempts += 1
            said = masked(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
            # Twice: the first wrong file may be one that somebody is replacing, or that a proxy has damaged.
            if _is_final(error) or (isinstance(error, _WrongContentError) and said == before):
                raise RefusedError(
                    f"{self}/{name}: cannot be fetched ({said}); check the URL, the credentials and the file there"
                ) from error
            # Before the pause, not after it: a wait that cannot end in an attempt only keeps the user waiting.
            if time.monotonic() + delay > deadline:
                raise ValueError(
                    f"{self}/{name}: not fetched in {self._config.deadline_seconds} s and {num_attempts} attempts "
                    f"({said}); check the server, or raise data.remote.deadline_seconds"
                ) from error
            if num_attempts == _TOLD_AFTER:
                tell(f"{self}/{name}: not fetched yet ({said}); tried again for {self._config.deadline_seconds:g} s")
            before = said
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_SECONDS)

    def _attempt(self, name: str, path: Path, check: Callable[[Path], object], limits: "_Limits") -> Exception | None:
        """Return why the file did not come; None where it did. FileNotFoundError is raised."""
        # In a URL, # and ? would end the path. The names of objects are taken as they are.
        is_web = urlsplit(self._url).scheme != "s3"
        # Any Exception: each library under fsspec has errors of its own.
        try:
            self._files.get_file(f"{self._url}/{quote(name) if is_web else name}", str(path), callback=limits)
        except FileNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 - told by whoever asked
            return error
        try:
            check(path)
        except ValueError as error:
            return _WrongContentError(str(error))
        return None


class _WrongContentError(ValueError):
    """A file that came whole, and is not the one that was wanted."""


class _TooLongError(ValueError):
    """A file of which more came than it can have."""


def _is_final(error: Exception) -> bool:
    """True where the next answer will be the same."""
    if isinstance(error, (_TooLongError, PermissionError, *_LED_ASTRAY)):
        return True
    if type(error).__name__ in _WITHOUT_CREDENTIALS:
        return True
    status = _status(error)
    return (400 <= status < 500 and status not in _PASSING) or getattr(error, "errno", None) in _LOCAL


def _status(error: BaseException) -> int:
    """Return the HTTP status that aiohttp or botocore met, 0 where it was something else."""
    status = getattr(error, "status", None)
    # s3fs raises an OSError in place of botocore's error, whose status only the cause has.
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else 0


class _Limits(Callback):  # type: ignore[misc] # fsspec has no types
    """Ends a transfer that delivers too many bytes, or that delivers them too slowly."""

    def __init__(self, deadline: float, max_bytes: int) -> None:
        super().__init__()
        self._deadline, self._max_bytes = deadline, max_bytes

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self._max_bytes:
            raise _TooLongError(f"more than its {self._max_bytes} bytes came")
        if time.monotonic() > self._deadline:
            # No TimeoutError: fsspec would put one of its own, without a word, in its place.
            raise ValueError(f"too slow: {self.value} of {self.size} bytes had come")


def _file_system(url: str, config: RemoteConfig) -> fsspec.AbstractFileSystem:
    """Return fsspec's file system for the URL, with our timeout and without retries of its own."""
    scheme, seconds = urlsplit(url).scheme, config.timeout_seconds
    if scheme in ("http", "https"):
        # No limit for the whole: aiohttp's own, 5 minutes, would end the transfer of a large shard that arrives well.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        return fsspec.filesystem(scheme, skip_instance_cache=True, client_kwargs={"timeout": timeout})
    if scheme == "s3":
        # botocore and s3fs would each try again by themselves, and the deadline would not hold.
        settings = {"connect_timeout": seconds, "read_timeout": seconds, "retries": {"max_attempts": 0}}
        try:
            # Not the shared instance: fsspec gives everyone in the process the same object, and its retries are changed
            # below.
            files = fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=settings)
        except ImportError as error:
            raise ValueError(f"{url} needs s3fs: pip install s3fs") from error
        files.retries = 1
        return files
    raise ValueError(f"{url}: shards are read from folders, http://, https:// and s3://, not from {scheme}://")
