"""`python -m upfrost_training`, the same as `upfrost-train`."""

import sys

from upfrost_training.cli import main

sys.exit(main())
