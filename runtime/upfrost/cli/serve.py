"""The command `upfrost serve`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from upfrost.cli import arguments

if TYPE_CHECKING:
    from upfrost.cli.arguments import Commands

HELP = """\
Show a page on which pictures and videos are upscaled, for a browser on this
machine or on a telephone. Programs get the same by HTTP."""

EPILOG = """\
examples:
  upfrost serve                                 http://127.0.0.1:8080/
  upfrost serve --host 0.0.0.0                  for the local network
  curl --data-binary @photo.jpg 'http://127.0.0.1:8080/api/jobs?name=photo.jpg'

who can use it:
  This machine alone, unless --host says otherwise. Then everybody needs the
  token in the address that is printed; UPFROST_TOKEN in the environment sets
  another one. There is no encryption: see docs/serve.md for a proxy before it.

Jobs stay in the folder (--folder) until they are removed. What is stopped or
killed goes on at the next start. /api/openapi.json describes the interface,
/metrics is for Prometheus.

It needs starlette and uvicorn: pip install 'upfrost[serve]', or Debian's
python3-starlette and python3-uvicorn.
"""


def add_serve(commands: Commands) -> None:
    """Add the command's parser."""
    parser = arguments.add_command(
        commands, "serve", "show a page that upscales", HELP, EPILOG
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen at (default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="N",
        help="to listen at (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which it is asked for, besides this machine's own",
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="where jobs are kept (default: $STATE_DIRECTORY, or "
        "~/.local/state/upfrost/serve)",
    )
    parser.add_argument(
        "--max-upload",
        type=arguments.positive,
        default=4000,
        metavar="MB",
        help="refuse larger files (default: %(default)s)",
    )
    parser.add_argument(
        "--max-jobs",
        type=arguments.positive,
        default=200,
        metavar="N",
        help="jobs that are kept at most; with so many, uploads are refused "
        "(default: %(default)s)",
    )
    arguments.add_device_choice(parser)
    arguments.add_memory_argument(parser)
    arguments.add_ffmpeg_argument(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from upfrost.serve.app import Limits, make_app
    from upfrost.serve.jobs import Store
    from upfrost.serve.server import (
        check_token,
        is_loopback,
        kept_token,
        listen,
        serving,
    )
    from upfrost.serve.speeds import Speeds
    from upfrost.serve.worker import Worker

    folder = Path(options.folder) if options.folder else _default_folder()
    store = Store(folder, options.max_jobs)
    with closing(store), listen(options.host, options.port) as listening:
        port = listening.getsockname()[1]
        token = None
        if not is_loopback(listening):
            token = os.environ.get("UPFROST_TOKEN", "")
            token = (
                check_token(token, "UPFROST_TOKEN")
                if token
                else kept_token(folder / "token")
            )
        speeds = Speeds(folder / "speeds.json")
        worker = Worker(store, speeds, arguments=_arguments_of_work(options))
        app = make_app(
            store,
            worker,
            speeds,
            limits=Limits(upload_bytes=options.max_upload * 1_000_000),
            token=token,
            # The address that is printed must open the page.
            names=[*options.allow_host, options.host],
        )
        with serving(app, listening) as thread:
            worker.start()
            try:
                address = _address(options.host, port, token)
                print(f"upfrost: {address}", file=sys.stderr, flush=True)
                while thread.is_alive():
                    thread.join(0.5)
            finally:
                # Before answers under way get their time: there is little of it.
                worker.stop()
    return 0


def _arguments_of_work(options: argparse.Namespace) -> list[str]:
    """The device and the rest, for the processes that do the jobs."""
    given = ["--precision", options.precision]
    for name in ("device", "memory", "ffmpeg"):
        value = getattr(options, name)
        if value is not None:
            given += [f"--{name}", str(value)]
    return given


def _default_folder() -> Path:
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".local" / "state"
    return base / "upfrost" / "serve"


def _address(host: str, port: int, token: str | None) -> str:
    import socket
    from urllib.parse import quote

    name = host
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
    elif ":" in host:
        name = f"[{host}]"
    return f"http://{name}:{port}/" + (
        f"?token={quote(token, safe='')}" if token else ""
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, found {text!r}")
    return int(text)
