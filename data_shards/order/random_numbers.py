"""Counter-based random numbers: Philox, keyed by a hash of their purpose, readable at any position.

No global generator and no hash(): equal arguments give equal draws in every process, at any world size. Only raw
64-bit words decide the order, since numpy keeps those equal between its versions; Generator it does not.
"""

import hashlib

import numpy as np


def key(*purpose: str | int) -> int:
    """Return a Philox key of 128 bits for a purpose such as ("lane", fingerprint, seed, epoch, lane)."""
    # repr keeps apart what joining would not, such as ("lane", 1, 23) and ("lane", 12, 3).
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:16])


def words(philox_key: int, begin: int, end: int) -> np.ndarray:
    """Return words begin to end, uint64, of the key's endless sequence."""
    # A count of the generator makes four words.
    first = begin // 4
    generator = np.random.Philox(key=philox_key, counter=first)
    return generator.random_raw(end - 4 * first)[begin - 4 * first :]


def uniform(philox_key: int, begin: int, end: int) -> np.ndarray:
    """Return numbers begin to end, float64 in [0, 1), of the key's endless sequence."""
    # The upper 53 bits are all that a float64 below 1 can hold. By our own formula and not by Generator.random: the
    # order of a running run must survive an update of numpy.
    return (words(philox_key, begin, end) >> np.uint64(11)) * 2.0**-53


class SampleDraws:
    """The generator of what happens to a sample: its crop, its noise, what of it is hidden. One object a thread."""

    def __init__(self, philox_key: int) -> None:
        self._philox = np.random.Philox(key=philox_key)
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state

    def at(self, epoch: int, position: int) -> np.random.Generator:
        """Return the generator for a position of an epoch; good until the next call."""
        # Moving one generator takes 1 us, making a new one 20, a tenth of what a small sample takes to decode.
        # Philox counts in the first word, so every position has 2^64 blocks of its own before it meets the next one's.
        self._state["state"]["counter"][:] = (0, position, epoch, 0)
        self._philox.state = self._state
        return self._generator
