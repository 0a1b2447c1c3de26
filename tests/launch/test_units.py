"""Rates as people write them."""

import pytest

from launch.cli.units import bytes_per_second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400Gb", 50e9),
        ("400Gb/s", 50e9),
        ("400 Gbps", 50e9),
        ("400Gbit/s", 50e9),
        ("50GB/s", 50e9),
        ("50GB", 50e9),
        ("4x200Gb", 100e9),
        ("8 x 400 Gb/s", 400e9),
        ("1.6Tb/s", 200e9),
        ("2GiB/s", 2 * 2**30),
        ("200MB/s", 200e6),
        ("1000Mb/s", 125e6),
        ("1B", 1),
        ("8b", 1),
        ("16 bits/sec", 2),
        ("3kb", 375),
        ("3KB", 3000),
        ("2Gbytes/s", 2e9),
        ("1*2TiB", 2**41),
    ],
)
def test_a_rate_is_bytes_a_second(text: str, expected: float) -> None:
    assert bytes_per_second(text, "--interconnect") == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "400", "Gb", "400G", "0Gb", "-4Gb", "nanGb", "infGb/s", "x200Gb", "4xx200Gb", "400Gb/h", "400gb", "1e99Gb",
     "4ib/s", "400Gb 3", "9" * 400 + "Gb", "\uff14Gb", "\0", "400Gb\n400Gb"],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_its_flag_and_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"--disk: expected a rate such as 400Gb") as refused:
        bytes_per_second(text, "--disk")
    assert "\n" not in str(refused.value)
