"""States as JSON, restored exactly: tuples stay tuples, and dict keys keep their types."""

from typing import Any

_TUPLE, _PAIRS = "$tuple", "$pairs"


def packed(value: object, where: str) -> Any:  # noqa: ANN401  # JSON
    """Return a state as JSON has it; ValueError names what JSON cannot keep."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [packed(part, f"{where}[{index}]") for index, part in enumerate(value)]
        case tuple():
            return {_TUPLE: [packed(part, f"{where}[{index}]") for index, part in enumerate(value)]}
        case dict():
            # A key of the user's that begins with $ could be taken for one of our marks.
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: packed(part, f"{where}[{key!r}]") for key, part in value.items()}
            return {
                _PAIRS: [[packed(key, where), packed(part, f"{where}[{key!r}]")] for key, part in value.items()],
            }
    raise ValueError(
        f"{where}: is of type {type(value).__name__}; a checkpoint keeps numbers, texts, lists, tuples and dicts of "
        "them beside the tensors of module and optimizer"
    )


def unpacked(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return what was packed."""
    if isinstance(value, list):
        return [unpacked(part) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TUPLE}:
        return tuple(unpacked(part) for part in value[_TUPLE])
    if value.keys() == {_PAIRS}:
        return {unpacked(key): unpacked(part) for key, part in value[_PAIRS]}
    return {key: unpacked(part) for key, part in value.items()}
