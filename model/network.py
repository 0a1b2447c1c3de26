"""What the trainer asks of a network, a Perceiver's or one of a user's own."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from model.checks import check_state
from model.config.perceiver import PerceiverConfig
from model.modalities.adapters.conv_stem import Total


class AnyNetwork(nn.Module):
    """A network whose weights are a pure function of its config and seed."""

    config: PerceiverConfig

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        problems = [f"{key}: {sentence}" for key, sentence in config.problems()]
        if problems:
            raise ValueError("\n".join(problems))
        self.config = config

    @abstractmethod
    def forward(
        self,
        inputs: dict[str, Tensor],
        lengths: dict[str, Tensor] | None = None,
        *,
        hidden: dict[str, Tensor] | None = None,
        points: dict[str, Tensor] | None = None,
        outputs: Collection[str] | None = None,
        chunk: int = 0,
        draws: Tensor | None = None,
        num_latents: int = 0,
    ) -> dict[str, Tensor]:
        """Return the answer of every output by its name; see Perceiver."""

    def observe(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], total: Total) -> None:
        """Take the statistics of a global batch, of which these are this rank's samples. Collective."""

    def settle(self, *, is_kept: Tensor | bool) -> None:
        """End a global batch; its statistics enter the running ones, which evaluation uses, where it `is_kept`."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Take the tensors of a state dict; ValueError with every missing, surplus or misshapen one if `strict`."""
        # Before PyTorch's own check, which speaks in one RuntimeError and would be a traceback to a user.
        if strict:
            check_state({name: value.shape for name, value in self.state_dict().items()}, state_dict)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
