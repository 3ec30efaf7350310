"""The way to a cluster's workers, by Dask's client; what they are, and whether they are
alike.

Dask is imported when a cluster is asked for, and never otherwise.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import ipaddress
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from upfrost import __version__
from upfrost.errors import UpfrostError
from upfrost.gpu.device import DeviceInfo
from upfrost.network.graph import Graph
from upfrost.network.modelfile import read_model
from upfrost.text import printable

if TYPE_CHECKING:
    from upfrost.cluster.work import Wanted

CONNECT = 10.0  # seconds until a scheduler and a first worker must be there
INTRODUCE = 60.0  # seconds for first answers; who takes longer may join later
_ANSWER = 30.0  # seconds for the scheduler's answers
_SEVERAL = "several"
T = TypeVar("T")


class ClusterError(UpfrostError):
    """A cluster that cannot do what it is asked for; one line says why."""


class SchedulerEndedError(ClusterError):
    """There is no scheduler any more."""


class PausedError(ClusterError):
    """A worker that is there, and gets nothing of Dask for now."""


class OtherVersionError(ClusterError):
    """A worker that has another upfrost."""


@dataclass(frozen=True)
class About:
    """What a worker said of itself."""

    address: str
    name: str
    identity: str
    host: str
    processors: int
    device: DeviceInfo
    precision: str
    ffmpeg: str | None
    tuned: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fleet:
    """The workers as one: what results are computed by (`Computer`)."""

    graph: Graph
    device: DeviceInfo
    precision: str
    tuned_kernels: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """What workers are asked for. `ffmpeg` is this machine's version, for videos."""

    model: Path
    device: str | None
    precision: str
    tile: int | None
    memory: int | None
    halo: int | None
    ffmpeg: str | None
    mixed: bool


class Connection:
    """Calls to workers. Its methods are for the event loop's thread alone."""

    def __init__(self, address: str, asked: Asked) -> None:
        self.run = secrets.token_hex(4)
        self.address = address
        self.met: list[About] = []  # who was there at the beginning
        self._asked = asked
        self._model = asked.model.read_bytes()
        self._client: Any = None
        self._agreed: tuple[str | None, ...] | None = None
        self._kinds: set[tuple[object, ...]] = set()

    @property
    def wanted(self) -> Wanted:
        """What workers are to open their devices with."""
        from upfrost.cluster.work import Wanted

        asked = self._asked
        return Wanted(
            model=hashlib.sha256(self._model).hexdigest(),
            device=asked.device,
            precision=asked.precision,
            tile=asked.tile,
            memory=asked.memory,
            halo=asked.halo,
        )

    async def open(self) -> None:
        """Connect. Raises `ClusterError`."""
        from distributed import Client, Security
        from distributed.comm import connect

        _quiet()
        security = Security()

        async def knock() -> None:
            arguments = security.get_connection_args("client")
            greeted = await connect(self.address, timeout=CONNECT, **arguments)
            await greeted.close()

        try:
            # First a greeting alone: Dask waits without end for that of who takes a
            # connection and says nothing, as another program's server may.
            await asyncio.wait_for(knock(), CONNECT + 1)
            self._client = await Client(
                self.address,
                asynchronous=True,
                timeout=CONNECT,
                security=security,
                set_as_default=False,
                name="upfrost",
            )
        except Exception as error:
            # The second is of words that were taken for a length.
            is_other = isinstance(error, (TimeoutError, MemoryError))
            reason = (
                "what is there does not answer as one" if is_other else _line(error)
            )
            advice = "'dask scheduler' starts one, and prints its address"
            if self.address.startswith("tls:"):
                advice = "Dask's settings name the certificates (docs/cluster.md)"
            raise ClusterError(
                f"{printable(self.address)}: no scheduler answers ({reason}); {advice}"
            ) from error

    async def close(self) -> None:
        if self._client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._client.close(), 2)

    async def workers(self) -> list[str]:
        """The addresses of those who are there. Raises `SchedulerEndedError`."""
        try:
            found = await asyncio.wait_for(self._client.nthreads(), _ANSWER)
        except Exception as error:
            raise self._ended() from error
        return sorted(found)

    async def meet(self) -> None:
        """Ask all workers that are there what they are.

        Raises `ClusterError` for none, and for such that are unlike each other, unless
        that was agreed to.
        """
        for _ in range(int(CONNECT * 4)):
            if addresses := await self.workers():
                break
            await asyncio.sleep(0.25)
        else:
            raise ClusterError(
                f"{printable(self.address)}: the cluster has no workers; 'dask worker "
                f"{printable(self.address)}' on each machine starts one"
            )
        answers = await asyncio.gather(
            *(self._introduce(address) for address in addresses),
            return_exceptions=True,
        )
        met = [a for a in answers if isinstance(a, About)]
        for answer in answers:
            if isinstance(answer, OtherVersionError):
                raise answer
            if isinstance(answer, BaseException) and not met:
                raise ClusterError(reason_of(answer)) from answer
        self._agree(met)
        self.met = met

    async def greet(self, address: str) -> About | None:
        """Ask a worker what it is; None for one that is not there any more.

        Waits for as long as the worker takes. Raises `ClusterError` for one that is
        unlike those that were met.
        """
        asking = asyncio.ensure_future(self._introduce(address, limit=None))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=1)
                failed = not asking.done() or asking.exception() is not None
                if failed and address not in await self.workers():
                    return None
                if asking.done() and isinstance(asking.exception(), PausedError):
                    asking = asyncio.ensure_future(self._introduce(address, limit=None))
            about = asking.result()
        finally:
            asking.cancel()
        if self._likeness(about) != self._agreed and not self._asked.mixed:
            raise ClusterError(
                f"{about.name} is unlike the others ("
                f"{_words(self._likeness(about))}, not {_words(self._agreed or ())})"
            )
        if _bits(about) not in self._kinds and not self._asked.mixed:
            raise ClusterError(
                f"{about.name}'s device ({about.device.name}) is none of those that "
                "the run began with; a new run takes it"
            )
        return about

    async def call(
        self,
        address: str,
        function: Callable[..., Any],
        token: str,
        *arguments: Any,
        data: bytes | Callable[[], bytes] | None,
    ) -> Any:
        """What a worker returns, who gets `data` as the last argument.

        What is read for it is not kept here. Raises what the function raises there.
        """
        sent: list[Any] = []
        future: Any = None
        try:
            content = await asyncio.to_thread(data) if callable(data) else data
            try:
                # By way of the scheduler, which may be all that can be reached from
                # here.
                sent = await self._client.scatter(
                    [content], workers=[address], hash=False, direct=False
                )
            except TimeoutError:
                raise PausedError(
                    "Dask has paused it, as it does where memory is short: its log "
                    "says so, and 'dask worker --memory-limit 0' prevents it"
                ) from None
            del content
            future = self._client.submit(
                function,
                *arguments,
                *sent,
                key=f"upfrost-{token}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            return await future
        except (asyncio.CancelledError, CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Dask says so of results that were lost, and of all when it ends. Which of
            # the two errors it is depends on its version.
            raise ClusterError("what it had was lost") from None
        finally:
            for each in (*sent, future):
                if each is not None:
                    with suppress(Exception):
                        each.release()

    async def cancel(self, address: str, token: str) -> None:
        """Tell a worker that nobody waits for that work any more."""
        from upfrost.cluster.work import cancel

        await asyncio.wait_for(
            self._client.run(cancel, token, workers=[address], on_error="ignore"), 5
        )

    async def _introduce(self, address: str, limit: float | None = INTRODUCE) -> About:
        from upfrost.cluster.work import introduce

        asked = {
            "upfrost": __version__,
            "video": self._asked.ffmpeg is not None,
            "wanted": dataclasses.asdict(self.wanted),
        }
        name = address.split("//")[-1]
        model: bytes | None = None
        try:
            for _ in range(2):
                token = f"{self.run}-hello-{secrets.token_hex(4)}"
                said = await asyncio.wait_for(
                    self.call(address, introduce, token, asked, data=model), limit
                )
                if "lacks" not in said:
                    break
                model = self._model
        except TimeoutError:
            raise ClusterError(f"{name} does not answer") from None
        except PausedError as error:
            raise PausedError(f"{name}: {_line(error)}") from None
        except ImportError as error:
            raise ClusterError(
                f"{name}: {_line(error)}; upfrost {__version__} must be installed there"
            ) from error
        except Exception as error:
            raise ClusterError(f"{name}: {_line(error)}") from error
        name = said.get("name") or name
        if said["upfrost"] != __version__:
            raise OtherVersionError(
                f"{name} has upfrost {said['upfrost']}, not {__version__} as here; all "
                "must have the same"
            )
        return About(
            address=address,
            name=printable(f"{name}"),
            identity=said.get("nanny") or address,
            host=printable(said["host"]),
            processors=said["processors"],
            ffmpeg=said["ffmpeg"],
            precision=said["precision"],
            device=said["device"],
            tuned=tuple(sorted(said["tuned"].items())),
        )

    def _likeness(self, about: About) -> tuple[str | None, ...]:
        """What must be alike, if frames and files are to be the same."""
        return about.precision, about.ffmpeg

    def _agree(self, met: Sequence[About]) -> None:
        kinds: dict[tuple[str | None, ...], list[str]] = {}
        for about in met:
            kinds.setdefault(self._likeness(about), []).append(about.name)
        here = self._asked.ffmpeg
        if here is not None:
            for kind in list(kinds):
                if kind[1] != here:
                    kinds.setdefault((kind[0], here), []).append("this machine")
                    break
        if len(kinds) > 1 and not self._asked.mixed:
            said = "; ".join(
                f"{_words(kind)}: {', '.join(names)}" for kind, names in kinds.items()
            )
            raise ClusterError(
                f"the cluster is mixed ({said}); make it alike, as --precision fp32 "
                "does for precisions, or agree to it with --mixed"
            )
        self._agreed = next(iter(kinds))
        self._kinds = {_bits(about) for about in met}

    def _ended(self) -> SchedulerEndedError:
        return SchedulerEndedError(
            f"{printable(self.address)}: the scheduler has ended, or cannot be reached "
            "any more"
        )


class Cluster:
    """A cluster whose workers were asked what they are; use it in a `with` block.

    Dask works in an event loop in a thread of its own, so that signals end what the
    main thread waits for. Raises `ClusterError`.
    """

    def __init__(self, address: str, asked: Asked) -> None:
        self.connection = Connection(address, asked)
        self._model = asked.model
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self.connection.open())
            self.run(self.connection.meet())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self.run(self.connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def met(self) -> list[About]:
        """Who was there at the beginning."""
        return self.connection.met

    @property
    def fleet(self) -> Fleet:
        """What results are computed by. Unlike devices have no name together."""
        first = self.met[0].device
        if len({_bits(about) for about in self.met}) > 1:
            first = replace(
                first,
                name=_SEVERAL,
                driver=_SEVERAL,
                driver_version=_SEVERAL,
                api_version=_SEVERAL,
            )
            tuned = {_SEVERAL: _SEVERAL}
        else:
            tuned = dict(self.met[0].tuned)
        precisions = {about.precision for about in self.met}
        precision = precisions.pop() if len(precisions) == 1 else _SEVERAL
        return Fleet(read_model(self._model), first, str(precision), tuned)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end in the loop, and return what comes of it."""
        ended = threading.Event()

        async def main() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(main(), self._loop)
        try:
            while not wait([future], 0.2).done:
                pass  # a signal is handled in between
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(5)
            raise


def insecurity(address: str) -> str | None:
    """What is to be said of an address that others could listen to, if there is."""
    try:
        parts = urlsplit(address if "//" in address else f"tcp://{address}")
        if parts.scheme in ("tls", "wss", "inproc") or not parts.hostname:
            return None
        found = {str(i[4][0]) for i in socket.getaddrinfo(parts.hostname, None)}
    except (OSError, ValueError):
        return None  # no address: nor will anybody connect to it
    if all(ipaddress.ip_address(a.split("%")[0]).is_private for a in found):
        return None
    return (
        f"{printable(address)} is neither encrypted nor on a private network: whoever "
        "is on the way sees the frames, and whoever reaches it runs programs on its "
        "workers; tls:// and certificates prevent that (docs/cluster.md)"
    )


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line."""
    if isinstance(error, UpfrostError):
        return _line(error)
    return f"{type(error).__name__}: {_line(error)}"


def _line(error: BaseException) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


def _bits(about: About) -> tuple[object, ...]:
    """What a worker's bits depend on."""
    device = about.device
    version = device.driver, device.driver_version, device.api_version
    return device.name, version, about.tuned, about.precision


def _words(kind: Iterable[str | None]) -> str:
    return ", ".join(word for word in kind if word)


def _quiet() -> None:
    """Dask's own words are not for users; what it says is said better here."""
    if not os.environ.get("UPFROST_TRACEBACK"):
        names = ("distributed", "tornado", "asyncio")
        for name in (*names, *logging.root.manager.loggerDict):
            if name.startswith(names):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
