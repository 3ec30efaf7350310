"""The evaluation and training data, which a user need not have."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of data sets; tests that need it are skipped without it."""
    folder = os.environ.get("UPFROST_DATA")
    if not folder:
        pytest.skip("UPFROST_DATA does not name a folder with Set5 and Set14")
    return Path(folder)
