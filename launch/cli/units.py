"""Parse rates as people write them (`400Gb` of a link, `2GB/s` of a disk, `4x200Gb/s` of four links) to bytes/s."""

import math
import re

from data_shards.files.quoting import shown

_FORM = re.compile(
    r"\s*(?:(?P<count>[0-9]{1,4})\s*[x*]\s*)?(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)\s*"
    r"(?P<prefix>[kKMGT]?)(?P<binary>i?)(?P<unit>bit|byte|[bB])(?:its|ytes|s)?\s*(?:/\s*s(?:ec)?|ps)?\s*"
)
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


def bytes_per_second(text: str, flag: str) -> float:
    """Return the rate that a flag's text says; a small b is a bit, a capital B a byte. ValueError for anything else."""
    found = _FORM.fullmatch(text)
    rate = 0.0
    # `iB` without a prefix is no unit.
    if found and (found["prefix"] or not found["binary"]):
        base = 1024 if found["binary"] else 1000
        bits = 1 if found["unit"] in ("B", "byte") else 8
        rate = int(found["count"] or 1) * float(found["number"]) * base ** _POWERS[found["prefix"]] / bits
    if not 0 < rate < math.inf:
        raise ValueError(
            f"{flag}: expected a rate such as 400Gb, 400Gb/s, 4x200Gb, 50GB/s or 2GiB/s "
            f"(b is a bit, B a byte), got {shown(text)}"
        )
    return rate
