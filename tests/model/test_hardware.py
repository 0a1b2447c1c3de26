"""Devices: rates are peaks by the share that a step reaches, and the table has no share above its peak."""

from dataclasses import replace

import pytest

from model.budget.hardware import HARDWARE


def test_each_rate_is_its_own_peak_by_its_own_share() -> None:
    shares = {"product_share": 0.5, "memory_share": 0.25, "transfer_share": 0.125}
    peaks = {"fp32_flops": 10.0, "half_flops": 40.0, "memory_bytes_per_second": 12.0, "host_bytes_per_second": 16.0}
    device = replace(HARDWARE["CPU"], **shares, **peaks)
    assert [device.product_rate(precision) for precision in ("fp32", "bf16", "fp16")] == [5.0, 20.0, 20.0]
    assert (device.memory_rate, device.host_rate) == (3.0, 2.0)


@pytest.mark.parametrize("name", HARDWARE)
def test_no_device_reaches_more_than_its_peaks(name: str) -> None:
    device = HARDWARE[name]
    for share in (device.product_share, device.memory_share, device.transfer_share):
        assert 0 < share <= 1
    # A message between two devices takes microseconds, half precision is no slower, and memory is faster than links.
    assert 0 < device.hop_seconds <= 1e-3
    assert device.half_flops > device.fp32_flops
    assert device.memory_bytes_per_second >= max(device.link_bytes_per_second, device.host_bytes_per_second)
