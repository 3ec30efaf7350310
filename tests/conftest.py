"""Settings of every test."""

import atexit
import os
import shutil
import tempfile

# What a developer's own device was tuned to must not decide what the tests find. Not
# XDG_CACHE_HOME, where Mesa keeps what it has compiled.
_CACHE = tempfile.mkdtemp(prefix="upfrost-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["UPFROST_CACHE"] = _CACHE
