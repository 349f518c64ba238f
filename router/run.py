"""One run of the router: build the app, bind, start, wait for a signal, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from router.app import App
from router.config import FleetConfig
from router.errors import ConfigFault
from router.fleetfile import from_urls, load
from router.listen import bind
from router.logs import LogFormat, Logs
from router.logs.sink import ThreadSink
from router.settings import Settings
from router.tls import check

log = logging.getLogger("router")

YOUNG_OBJECTS = 20_000  # made and not yet freed, before the collector looks at them


class Ended(Exception):
    """The run is over with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def read_fleet(settings: Settings, urls: tuple[str, ...]) -> FleetConfig:
    """The fleet from the file or the URLs.

    Raises:
        ConfigFault: neither or both were given, or the file is not right; every mistake is in the message.
    """
    if urls and settings.config is not None:
        raise ConfigFault("give --backend or --config, not both: what --backend says belongs into the file")
    if urls:
        fleet = from_urls(urls)
    elif settings.config is not None:
        fleet = load(settings.config, os.environ)
    else:
        raise ConfigFault("which servers? router serve --backend http://spark-1:8000, or --config FILE")
    return check(fleet.model_copy(update={"passive": True}) if settings.passive else fleet)


def make_logs(settings: Settings, log_format: str) -> Logs:
    """The log, as asked for: text where a person reads, JSON where a machine does."""
    import time

    to_terminal = settings.log_file == "-" and sys.stdout.isatty()
    form = LogFormat.TEXT if log_format == "text" or (log_format == "auto" and to_terminal) else LogFormat.JSON
    sink = ThreadSink(sys.stdout.fileno() if settings.log_file == "-" else Path(settings.log_file))
    logs = Logs(sink, time.time, form)
    logs.bridge(getattr(logging, settings.log_level.upper()))
    for chatty in ("httpx", "httpcore", "uvicorn"):  # a line per probe and per page says nothing new
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return logs


async def run(settings: Settings, urls: tuple[str, ...], log_format: str) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once.

    Raises:
        Ended: with the exit code.
        ConfigFault: the fleet is not right.
        OSError: a port cannot be bound.
    """
    fleet = read_fleet(settings, urls)
    loop = asyncio.get_running_loop()
    logs = make_logs(settings, log_format)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    app = App(fleet, loop, logs=logs, history_file=settings.history_file)
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, on_signal)
    port = await app.listen(settings.host, settings.port)
    admin_listener = bind(settings.admin_host, settings.admin_port)
    shown = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    log.info("clients: http://%s:%d/v1", shown, port)
    await app.start()
    if settings.config is not None:
        app.reloads_from(settings.config, lambda: read_fleet(settings, ()), watch=settings.watch)
        loop.add_signal_handler(signal.SIGHUP, lambda: app.reload_soon(logs))
    from router.admin.serve import start_admin  # after the data port answers: FastAPI is the slowest import

    app.admin = start_admin(app, settings, admin_listener)
    log.info("dashboard: http://%s:%d/login?token=%s", settings.admin_host, app.admin.port, app.admin.token)
    # What lives for the whole run need not be looked at again by every full collection. No call leaves cycles behind
    # (tests/exchange/test_garbage.py), so the young are looked at seldom: at 64 calls at once the usual 700 objects are
    # under way at any time, and looking them over again and again took a tenth of a plain call's CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    await stop.wait()
    stopping = loop.create_task(app.stop(fleet.timeouts.shutdown_s))
    waiting = loop.create_task(hurry.wait())
    await asyncio.wait({stopping, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, waiting):
        task.cancel()
    raise Ended(0 if stopping.done() and not stopping.cancelled() else 1)
