"""What this process asks the system for, such as the opening of a file, told to whoever listens.

Not by a hook of the interpreter (sys.addaudithook): none can be taken away, and each would be called at every id()
of all tests after it, which makes a copy.deepcopy three times as long.
"""

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Listener = Callable[[str, tuple[Any, ...]], None]
_CALLS = {
    "open": (builtins, io, os),
    **dict.fromkeys(("link", "listdir", "rename", "scandir", "utime"), (os,)),
}


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call the listener with the name and the arguments of each such call, by the names that audit hooks have."""
    with pytest.MonkeyPatch.context() as patch:
        for name, modules in _CALLS.items():
            event = name if name == "open" else f"os.{name}"
            for module in modules:
                patch.setattr(module, name, _heard(getattr(module, name), event, listener))
        yield


def _heard(call: Callable[..., Any], event: str, listener: Listener) -> Callable[..., Any]:
    def heard(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # those of the call
        listener(event, arguments or (options.get("path", "."),))
        return call(*arguments, **options)

    return heard
