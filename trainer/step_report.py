"""StepReport: what one optimizer step did, before anybody has looked at it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """What one step did. Tensors stay on the device until somebody reads them."""

    loss: Tensor
    """Of the global batch, before the update."""
    task_losses: dict[str, Tensor]
    """Of each task, unweighted; in log lines also of each task's samples with a modality, as "task/modality"."""
    learning_rate: float
    """That the step was made with."""
    grad_norm: Tensor
    """Of the whole gradient before clipping; infinite or NaN where the step was skipped."""
    is_skipped: bool
    """Whether loss or gradient was not finite, so that nothing was updated on any rank. Where only the scaled gradient
    of fp16 left its range, the scale is lowered and this stays False."""
    group_norms: dict[str, float]
    """Norm of the gradient of each parameter group before clipping; empty between log lines."""
    forward_seconds: float
    """Time of this rank's forward passes: what the others cannot wait for yet, so that slow ranks show."""
    num_samples: int
    """Samples of the global batch."""
