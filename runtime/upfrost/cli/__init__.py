"""The command `upfrost`, and what its parts share."""

import os
import signal


def run() -> int:
    """The command's entry point, which can be interrupted while the command loads."""
    try:
        from upfrost.cli.main import main

        return main()
    except KeyboardInterrupt:
        os.write(2, b"upfrost: stopped by SIGINT\n")
        return 128 + signal.SIGINT
