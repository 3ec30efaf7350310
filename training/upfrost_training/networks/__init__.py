"""The networks of the released models, in training form and in inference form."""

from collections.abc import Callable
from typing import Any

from upfrost_training.networks.cascade import CascadeNetwork, CascadeSettings
from upfrost_training.networks.plain import Plain, PlainSettings

Network = Plain | CascadeNetwork
# By the kind that configurations name: what is set, and what is made of it.
NETWORKS: dict[
    str, tuple[type[PlainSettings | CascadeSettings], Callable[[Any], Network]]
] = {
    "plain": (PlainSettings, Plain),
    "cascade": (CascadeSettings, CascadeNetwork),
}


def make_network(kind: str, settings: dict[str, Any]) -> Network:
    """The training form of network `kind`; bad settings raise ValueError."""
    if kind not in NETWORKS:
        known = " or ".join(NETWORKS)
        raise ValueError(f"unknown kind of network {kind!r}: use {known}")
    of_settings, of_network = NETWORKS[kind]
    try:
        return of_network(of_settings(**settings))
    # RuntimeError: of torch, to a number that no layer can have.
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"[network] of kind {kind}: {error}") from error
