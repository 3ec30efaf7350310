"""The networks of the released models, in training form and in inference form."""

from typing import Any

from upfrost_training.networks.cascade import CascadeNetwork, CascadeSettings
from upfrost_training.networks.plain import Plain, PlainSettings

Network = Plain | CascadeNetwork


def make_network(kind: str, settings: dict[str, Any]) -> Network:
    """The training form of network `kind`; bad settings raise ValueError."""
    try:
        if kind == "plain":
            return Plain(PlainSettings(**settings))
        if kind == "cascade":
            return CascadeNetwork(CascadeSettings(**settings))
    # RuntimeError: of torch, to a number that no layer can have.
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"[network] of kind {kind}: {error}") from error
    raise ValueError(f"unknown kind of network {kind!r}: use plain or cascade")
