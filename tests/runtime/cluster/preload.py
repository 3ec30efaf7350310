"""What a `dask worker` loads first in tests: its upscaler needs no device."""

from typing import Any

from tests.runtime.cluster.clusters import Fake
from upfrost.cluster import work


def open_fake(graph: Any, wanted: Any) -> Fake:
    del wanted
    return Fake(graph)


work.open_upscaler = open_fake  # type: ignore[assignment]
