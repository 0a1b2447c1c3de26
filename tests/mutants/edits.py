"""The faults that a tired engineer makes: one place of a module in other words.

    if found < wanted and not stopped:      `<=`, `or`, without the `not`, always, never
    self._check(folder)                     the call is left out
    return load(path, strict=True)          `strict=False`, or without it

Types, docstrings, messages of errors and logs are left alone: no test should know them by heart.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
_TASTE = ("fontsize", "labelsize", "linewidth")
"""Keywords whose numbers change only how large the letters and lines of a picture are."""
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True)
class Fault:
    """One place of a module's text, and what stands there instead."""

    line: int
    """First line of the place, from 1."""
    start: int
    stop: int
    """Bytes of the text, UTF-8."""
    text: str
    kind: str

    def planted(self, source: bytes) -> bytes:
        """Return the module with the fault."""
        return source[: self.start] + self.text.encode() + source[self.stop :]


def faults(source: bytes) -> list[Fault]:
    """Return all faults that can be planted in a module, in the order of their places."""
    tree = ast.parse(source)
    places = _Places(source)
    found = [fault for node in _code(tree) for fault in _of(node, places)]
    return sorted(found, key=lambda fault: (fault.start, fault.stop, fault.text))


def runs_at_import(source: bytes, line: int) -> bool:
    """Return whether a line stands outside of all functions: whoever loads the module runs it."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return not any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions)


class _Places:
    """The place of a node in the text."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return first and last byte of an expression or statement."""
        start = self._lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        stop = self._lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, stop

    def text(self, node: ast.AST) -> str:
        """Return what stands there."""
        start, stop = self.span(node)
        return self.source[start:stop].decode()

    def instead(self, node: ast.AST, text: str, kind: str) -> Fault:
        """Return the fault of writing this text for a node."""
        return Fault(node.lineno, *self.span(node), text, kind)  # type: ignore[attr-defined]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that decide something."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params") or _is_words(node, name):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Import | ast.ImportFrom):
                yield from _code(child)


def _is_words(node: ast.AST, name: str) -> bool:
    """Return whether a field holds only text for people, the size of letters and lines, or only types."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Raise) and name in ("exc", "cause")):
        return True
    if isinstance(node, ast.keyword) and node.arg in _TASTE:
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or (
        isinstance(node, ast.Assert) and name == "msg"
    )


def _of(node: ast.AST, places: _Places) -> Iterator[Fault]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            text = f"{places.text(left)} {_COMPARISONS[type(operator)]} {places.text(right)}"
            yield places.instead(node, text, "comparison")
        case ast.BoolOp(op=operator, values=values):
            word = " or " if isinstance(operator, ast.And) else " and "
            yield places.instead(node, f"({word.join(f'({places.text(value)})' for value in values)})", "logic")
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield places.instead(node, f"({places.text(operand)})", "without not")
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS and not _is_type(node):
            text = f"({places.text(left)}) {_OPERATORS[type(operator)]} ({places.text(right)})"
            yield places.instead(node, f"({text})", "arithmetic")
        case ast.Constant(value=bool() | int() | float() as value) if not _is_rate(value):
            yield places.instead(node, repr(not value if isinstance(value, bool) else value + 1), "constant")
        case ast.Call():
            yield from _of_call(node, places)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not _is_decided(test):
            for word in ("True", "False") if not isinstance(node, ast.While) else ("False",):
                yield places.instead(test, word, "condition")
        case ast.stmt():
            yield from _of_statement(node, places)


def _is_rate(value: float) -> bool:
    """Return whether one more is within the rounding of a number's digits, such as a rate of a data sheet."""
    return isinstance(value, float) and value >= 1e6


def _of_call(node: ast.Call, places: _Places) -> Iterator[Fault]:
    if isinstance(node.func, ast.Name) and node.func.id in _NAMES and node.args:
        yield places.instead(node.func, _NAMES[node.func.id], "function")
    for keyword in node.keywords:
        # Ruff's B905, which every commit must pass, refuses a zip that does not say whether it is strict.
        if keyword.arg in (None, *_TASTE) or (keyword.arg == "strict" and places.text(node.func) == "zip"):
            continue
        parts = [*node.args, *(other for other in node.keywords if other is not keyword)]
        if any(isinstance(part, ast.GeneratorExp) for part in parts):
            continue
        text = f"{places.text(node.func)}({', '.join(places.text(part) for part in parts)})"
        yield places.instead(node, text, f"without {keyword.arg}=")


def _of_statement(node: ast.stmt, places: _Places) -> Iterator[Fault]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Assert() | ast.Delete():
            yield places.instead(node, "pass", "left out")
        case ast.Break():
            yield places.instead(node, "continue", "loop")
        case ast.Continue():
            yield places.instead(node, "break", "loop")
        case _:
            return


def _is_decided(test: ast.expr) -> bool:
    """Return whether a condition is the same in every run; TYPE_CHECKING is for mypy alone."""
    return isinstance(test, ast.Constant) or (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING")


def _is_type(node: ast.BinOp) -> bool:
    """Return whether `A | B` joins types, as in isinstance."""
    return isinstance(node.op, ast.BitOr) and all(
        isinstance(side, ast.Name | ast.Attribute | ast.BinOp | ast.Subscript)
        or (isinstance(side, ast.Constant) and side.value is None)
        for side in (node.left, node.right)
    )
