"""The networks of the released models, in training form and in inference form."""

from typing import Any, Protocol

from torch import Tensor, nn

from upfrost_training.networks.plain import PlainSettings, PlainTraining


class TrainingNetwork(Protocol):
    """What the loop asks of a network: it is called, and it folds."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def folded(self) -> nn.Module: ...


def make_network(kind: str, settings: dict[str, Any]) -> nn.Module:
    """The training form of network `kind`; bad settings raise ValueError."""
    if kind != "plain":
        raise ValueError(f"unknown kind of network {kind!r}: use plain")
    try:
        return PlainTraining(PlainSettings(**settings))
    except TypeError as error:
        raise ValueError(f"[network] of kind {kind}: {error}") from error
