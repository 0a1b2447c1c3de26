"""A field of a record, or an array of an archive, read as a member: the caption in .json, the array in .npz."""

import json

from data_shards.files.quoting import cut


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
    from data_shards.modalities.decoding.numbers import npz_archive, npz_entry

    with npz_archive(content) as archive:
        return npz_entry(archive, f"{field}.npy") if f"{field}.npy" in archive.namelist() else None
