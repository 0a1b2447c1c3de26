"""What is kept on the host travels beside the computation, is asked for a layer early, and comes back as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from model.training.offload import Offload, SideStream

LAYERS = 4


class Journal:
    """A carrier that notes what it is asked; a copy arrives when it is met, and not before."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def leave(self, tensor: Tensor) -> Tensor:
        self.told.append(("leave", tensor.flatten()[0].item()))
        return tensor.detach().clone()

    def fetch(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        self.told.append(("fetch", kept.flatten()[0].item()))
        return torch.full_like(kept, torch.nan), kept

    def meet(self, tensor: Tensor, arrival: object) -> None:
        assert isinstance(arrival, Tensor)
        self.told.append(("meet", arrival.flatten()[0].item()))
        tensor.copy_(arrival)


class Copies(TorchFunctionMode):
    """Whether each copy of a tensor lets the host go on."""

    def __init__(self) -> None:
        super().__init__()
        self.non_blocking: list[bool] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func in (Tensor.copy_, Tensor.to):
            self.non_blocking.append((kwargs or {}).get("non_blocking", False))
        return func(*args, **(kwargs or {}))


def layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(LAYERS))


def gradients(offload: Offload | None, passes: int = 1) -> list[Tensor]:
    network = layers()
    for number in range(passes):
        values = torch.linspace(number + 1, number + 2, 15).view(3, 5).requires_grad_()
        for layer in network:
            if offload is None:
                values = checkpoint(layer, values, use_reentrant=False)
            else:
                with torch.autograd.graph.saved_tensors_hooks(offload.pack, offload.unpack):
                    values = checkpoint(layer, values, use_reentrant=False)
        values.square().sum().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_gradients_are_those_without_it_to_the_bit_also_over_several_micro_batches() -> None:
    for passes in (1, 3):
        expected, found = gradients(None, passes), gradients(Offload(Journal()), passes)
        assert len(expected) == 2 * LAYERS
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_what_a_layer_kept_is_on_its_way_before_the_layer_after_it_is_computed_again() -> None:
    journal = Journal()
    gradients(Offload(journal))
    kept = [value for what, value in journal.told[:LAYERS] if what == "leave"]
    assert len(kept) == LAYERS
    fourth, third, second, first = reversed(kept)
    assert journal.told[LAYERS:] == [
        # The last layer is asked for when it is needed, each other one while the one after it is at work.
        ("fetch", fourth),
        ("fetch", third),
        ("meet", fourth),
        ("fetch", second),
        ("meet", third),
        ("fetch", first),
        ("meet", second),
        ("meet", first),
    ]


def test_a_tensor_without_elements_stays_where_it_is() -> None:
    # PyTorch 2.9 keeps one for each recomputed layer.
    journal, empty = Journal(), torch.empty(0)
    offload = Offload(journal)
    assert offload.unpack(offload.pack(empty)) is empty
    assert journal.told == []


def test_copies_leave_behind_what_is_computed_and_are_met_by_their_own_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, object]] = []

    class Stream:
        def __init__(self, *_: object) -> None:
            self.name = "copies" if _ else "computation"

        def wait_stream(self, other: "Stream") -> None:
            told.append((f"{self.name} wait for", other.name))

        def wait_event(self, event: "Event") -> None:
            told.append((f"{self.name} wait for", event))

        def __enter__(self) -> None:
            told.append(("inside", self.name))

        def __exit__(self, *_: object) -> None:
            told.append(("outside", self.name))

    class Event:
        def record(self, stream: Stream) -> None:
            told.append(("marked in", stream.name))

        def synchronize(self) -> None:
            raise AssertionError("the host waited")

    computation = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computation)
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: told.append(("held for", stream.name)))
    empty: Callable[..., Tensor] = torch.empty
    pinned = list[bool]()

    def without_a_gpu(*sizes: object, pin_memory: bool = False, **options: object) -> Tensor:
        """There is no page-locked memory."""
        pinned.append(pin_memory)
        return empty(*sizes, **options)

    monkeypatch.setattr(torch, "empty", without_a_gpu)
    side, values = SideStream(torch.device("cpu")), torch.arange(3.0, dtype=torch.bfloat16)
    with Copies() as copies:
        kept = side.leave(values)
        back, arrival = side.fetch(kept)
    side.meet(back, arrival)
    assert torch.equal(back, values)
    assert back.dtype == kept.dtype == torch.bfloat16
    assert pinned == [True]
    assert copies.non_blocking == [True, True]
    assert told == [
        ("copies wait for", "computation"),
        ("inside", "copies"),
        ("outside", "copies"),
        ("held for", "copies"),
        ("inside", "copies"),
        ("marked in", "copies"),
        ("outside", "copies"),
        ("computation wait for", arrival),
        ("held for", "computation"),
    ]
