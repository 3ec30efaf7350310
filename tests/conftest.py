"""Settings of every test."""

import os
import tempfile

# What a developer's own device was tuned to must not decide what the tests find. Not
# XDG_CACHE_HOME, where Mesa keeps what it has compiled.
os.environ["UPFROST_CACHE"] = tempfile.mkdtemp(prefix="upfrost-tests-")
