"""What a GPU is told of precision and determinism before it is used, and what it cannot do is refused by name."""

from collections.abc import Iterator

import pytest
import torch

from trainer.config import TrainConfig
from trainer.engine import arithmetic

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def _settings() -> Iterator[None]:
    """Give torch back the settings that it had."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    cudnn = {name: getattr(torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    matmul = torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(before)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    for name, value in cudnn.items():
        setattr(torch.backends.cudnn, name, value)
    torch.set_float32_matmul_precision(matmul)


def found() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.usefixtures("_settings")
def test_a_gpu_takes_deterministic_kernels_unless_it_is_told_otherwise() -> None:
    torch.backends.cudnn.benchmark = True
    arithmetic.apply(TrainConfig(), GPU)
    # Where torch only warns, the backward passes of flash and memory-efficient attention are not deterministic.
    assert found() == (True, False, True, False)
    assert not torch.utils.deterministic.fill_uninitialized_memory
    arithmetic.apply(TrainConfig(deterministic=False), GPU)
    assert found() == (False, False, False, False)


@pytest.mark.usefixtures("_settings")
def test_tf32_is_off_in_products_and_convolutions_unless_it_is_asked_for() -> None:
    for asked, precision in ((False, "highest"), (True, "high")):
        arithmetic.apply(TrainConfig(tf32=asked), GPU)
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 is asked


@pytest.mark.usefixtures("_settings")
def test_a_cpu_is_left_as_it_is() -> None:
    before = (*found(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    arithmetic.apply(TrainConfig(tf32=True), CPU)
    assert (*found(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_cublas_finds_its_workspace_in_the_environment_before_the_device_is_used() -> None:
    environment: dict[str, str] = {}
    arithmetic.prepare(TrainConfig(), environment)
    assert environment == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    for chosen in (":16:8", ":4096:8"):
        environment = {"CUBLAS_WORKSPACE_CONFIG": chosen}
        arithmetic.prepare(TrainConfig(), environment)
        assert environment == {"CUBLAS_WORKSPACE_CONFIG": chosen}
    environment = {}
    arithmetic.prepare(TrainConfig(deterministic=False), environment)
    assert environment == {}


def test_a_workspace_that_is_not_deterministic_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"CUBLAS_WORKSPACE_CONFIG = :4096:8 or :16:8, .* has :0:0; unset it"):
        arithmetic.prepare(TrainConfig(), {"CUBLAS_WORKSPACE_CONFIG": ":0:0"})


@pytest.mark.usefixtures("_settings")
def test_an_operation_without_a_deterministic_form_is_refused_by_its_name() -> None:
    torch.use_deterministic_algorithms(True)
    with (
        pytest.raises(ValueError, match=r"put_ has no deterministic form .* train\.deterministic=false"),
        arithmetic.refusing_by_name(),
    ):
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([1.0]))
    with pytest.raises(RuntimeError, match="something else"), arithmetic.refusing_by_name():
        raise RuntimeError("something else")


@pytest.mark.parametrize(("device", "expected"), [("cuda", "bf16"), ("cpu", "fp32")])
def test_auto_is_bf16_on_a_gpu_and_fp32_elsewhere_and_what_is_named_stays(device: str, expected: str) -> None:
    assert arithmetic.resolved(TrainConfig(), device).precision == expected
    for precision in ("fp32", "bf16", "fp16"):
        assert arithmetic.resolved(TrainConfig(precision=precision), device).precision == precision


def test_a_machine_trains_on_its_gpu_where_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_one, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda: has_one)  # noqa: B023
        assert arithmetic.local_device_type() == expected


def test_what_was_chosen_is_said() -> None:
    said = arithmetic.sentence(TrainConfig(precision="bf16"), GPU)
    assert said == "computes in bf16 on cuda:0, fp32 products in fp32, deterministic kernels"
    other = arithmetic.sentence(TrainConfig(precision="fp32", tf32=True, deterministic=False), GPU)
    assert (
        other == "computes in fp32 on cuda:0, fp32 products in TF32, kernels that may differ in the last bits each time"
    )
    assert "fp32 on the CPU" in arithmetic.sentence(TrainConfig(precision="fp32"), CPU)
