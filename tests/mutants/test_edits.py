"""What faults are planted, and where none are."""

import pytest
from edits import faults, runs_at_import


def planted(source: str) -> list[str]:
    return [fault.planted(source.encode()).decode() for fault in faults(source.encode())]


@pytest.mark.parametrize(
    ("source", "faulty"),
    [
        ("a < b", "a <= b"),
        ("a is b", "a is not b"),
        ("a and b", "((a) or (b))"),
        ("not a", "(a)"),
        ("a - b", "((a) + (b))"),
        ("x = True", "x = False"),
        ("x = 3", "x = 4"),
        ("max(a, b)", "min(a, b)"),
        ("f(a, key=b)", "f(a)"),
        ("f()", "pass"),
        ("raise a", "pass"),
        ("while a:\n    break", "while a:\n    continue"),
        ("if a:\n    b", "if False:\n    b"),
        ("if a:\n    b", "if True:\n    b"),
    ],
)
def test_a_fault_is_planted(source: str, faulty: str) -> None:
    assert faulty in planted(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Three words, 3."""',
        "x: int | None",
        "def f(a: int | str) -> int | None: ...",
        "x = isinstance(a, int | str)",
        "import a",
        "if TYPE_CHECKING:\n    import a",
    ],
)
def test_words_and_types_are_left_alone(source: str) -> None:
    assert planted(source) == []


def test_a_zip_always_says_whether_it_is_strict() -> None:
    assert planted("zip(a, b, strict=True)") == ["pass", "zip(a, b, strict=False)"]


def test_a_float_of_millions_is_left_alone() -> None:
    assert planted("x = 67e12, 1e6, 9e5, 1_000_000") == [
        "x = 67e12, 1e6, 900001.0, 1_000_000",
        "x = 67e12, 1e6, 9e5, 1000001",
    ]


def test_the_size_of_letters_and_lines_is_taste() -> None:
    assert planted("draw(a, fontsize=6, linewidth=2 * b)") == ["pass"]


def test_a_message_keeps_its_words() -> None:
    assert planted("raise ValueError(f'{a + 1} of 3', 4)") == ["pass"]


def test_places_count_bytes_not_characters() -> None:
    assert planted("x = 'ä'; y = 3") == ["x = 'ä'; y = 4"]


def test_every_fault_has_its_line() -> None:
    source = b"a = 1\n\nif b < c:\n    d(e=2)\n"
    assert {(fault.line, fault.kind) for fault in faults(source)} == {
        (1, "constant"),
        (3, "comparison"),
        (3, "condition"),
        (4, "left out"),
        (4, "without e="),
        (4, "constant"),
    }


def test_what_stands_outside_of_functions_runs_at_import() -> None:
    source = b"""LIMIT = 1
class A:
    width: int = 2
    def f(
        self, depth=3
    ):
        self.depth = depth
        def inner():
            return 4
        return 5
A()
"""
    assert [line for line in range(1, 12) if runs_at_import(source, line)] == [1, 2, 3, 4, 5, 6, 11]
