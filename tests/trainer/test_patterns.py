"""A pattern of names with a number, or without one: the last that matches counts, and what is none is refused."""

import pytest

from trainer.patterns import Rule, factor_problems, last_match, rules, step_problems


def test_a_rule_is_a_pattern_and_what_stands_behind_its_last_equals_sign() -> None:
    assert rules(("a.*", "a.*=5", "b=c=0.5", "*=0")) == (
        Rule("a.*", None),
        Rule("a.*", 5.0),
        Rule("b=c", 0.5),
        Rule("*", 0.0),
    )


def test_of_the_rules_for_any_name_of_a_parameter_the_last_counts() -> None:
    found = rules(("*", "a.*=1", "b.*=2", "A.*=3"))
    assert last_match(found, ("a.x",)) == Rule("a.*", 1.0)
    assert last_match(found, ("c", "b.x")) == Rule("b.*", 2.0)
    assert last_match(found, ("c",)) == Rule("*", None)
    assert last_match(found[1:], ("c",)) is None


@pytest.mark.parametrize(
    ("text", "is_step", "is_factor"),
    [
        ("a.*", True, False),
        ("a.*=0", True, True),
        ("a.*=500", True, True),
        ("a=b=3", True, True),
        ("a=1.5", False, True),
        ("a=1e-3", False, True),
        ("a=-1", False, False),
        ("a=-0.1", False, False),
        ("a=nan", False, False),
        ("a=inf", False, False),
        ("a=", False, False),
        ("a=soon", False, False),
        ("=3", False, False),
        ("=", False, False),
        ("", False, False),
    ],
)
def test_what_is_no_rule_is_refused_by_its_text(text: str, is_step: bool, is_factor: bool) -> None:
    of_step = f"expected PATTERN or PATTERN=STEP, such as encoder.* or encoder.*=500, got {text!r}"
    of_factor = f"expected PATTERN=FACTOR with a factor of 0 or more, such as encoder.*=0.1, got {text!r}"
    assert list(step_problems(["fine", text])) == ([] if is_step else [of_step])
    assert list(factor_problems(["fine=1", text])) == ([] if is_factor else [of_factor])
