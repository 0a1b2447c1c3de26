"""A field of a record, or an array of an archive, read as a member: the caption in .json, the array in .npz."""

import io
import json
import zipfile
import zlib

from data_shards.files.quoting import cut

MAX_BYTES = 1 << 30
"""The maximum size of an array in an archive."""


def content_of_field(suffix: str, field: str, content: bytes | memoryview) -> bytes | None:
    """Return the bytes of a field, None where the member has none of that name.

    Of a record a text is its UTF-8, and any other value its JSON; null is none. Of an archive it is the file
    FIELD.npy. Raises ValueError where the member cannot be read.
    """
    try:
        return _of_archive(field, content) if suffix.endswith("npz") else _of_record(field, bytes(content))
    except ValueError as error:
        raise ValueError(f".{suffix}: {error}") from error


def _of_record(field: str, record: bytes) -> bytes | None:
    try:
        found = json.loads(record)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is no JSON ({type(error).__name__}: {cut(str(error))})") from error
    # A name may have a full stop; where there is none of it, the parts lead into objects within objects.
    if not (isinstance(found, dict) and field in found):
        for part in field.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    else:
        found = found[field]
    if found is None:
        return None
    # JSON may hold half of a surrogate pair, which is no UTF-8. Let through, it is refused as text, with the sample's
    # name.
    return (found if isinstance(found, str) else json.dumps(found)).encode(errors="surrogatepass")


def _of_archive(field: str, content: bytes | memoryview) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if f"{field}.npy" not in archive.namelist():
                return None
            entry = archive.getinfo(f"{field}.npy")
            if entry.file_size > MAX_BYTES:
                raise ValueError(f"claims an array of {entry.file_size} bytes; at most {MAX_BYTES} are read")
            # The others may ask for gigabytes to unpack a few bytes; numpy writes none of them.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("packed in another way than by deflate; write it by numpy")
            with archive.open(entry) as file:
                return file.read()
    # zipfile says NotImplementedError of a compression that it does not know, RuntimeError of an encrypted file.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        raise ValueError(f"corrupt .npz file ({cut(str(error))})") from error
