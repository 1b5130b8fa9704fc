"""A Ray session: one of this machine's own, or a cluster's; where there is none, one sentence why."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from lfreeze.errors import InputError
from reproduce.process import BAD_INPUT, FAILED, end_on_signals, set_environment
from reproduce.run.preflight import OBJECT_STORE_BYTES

_HOST_PORT = re.compile(r"(?P<host>[^:/\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_ANSWER_SECONDS = 5.0
_CHECK_SECONDS = 30.0
_JOIN_SECONDS = 180.0
_HEADLESS_SECONDS = 8.0


@contextlib.contextmanager
def ray_session(address: str | None, dashboard: tuple[str, int] | None = None) -> Iterator[None]:
    """Join the cluster at ``address``, or start one on this machine alone; ends with the block.

    Args:
        dashboard: host and port of this machine's own dashboard; a cluster has its own.

    Raises:
        InputError: the address is malformed, does not answer, or wants another token or version; or Ray does
            not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # A worker's death is told in one line by the recorder, and by the trial's row if it stays dead.
    for teller in ("execution.tune_controller", "tune"):
        logging.getLogger(f"ray.tune.{teller}").setLevel(logging.CRITICAL)
    # Before Ray is imported. Nothing but a requested dashboard listens beyond this machine.
    set_environment(single_machine=address is None)
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # A bare init would follow a stale address file to a cluster that is dead.
        options |= {"address": "local", "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"include_dashboard": dashboard is not None}
        if dashboard is not None:
            host, port = dashboard
            require_guarded(host)
            require_free(host, port)
            options |= {"dashboard_host": host, "dashboard_port": port}
    else:
        require_answer(address)
        options["address"] = address
    problem = (
        f"the Ray cluster at {address!r} cannot be joined"
        if address
        else "Ray does not start on this machine"
    )
    try:
        with ended_after(_JOIN_SECONDS, problem):
            context = ray.init(**options)
    except Exception as error:
        raise InputError(f"{problem}: {' '.join(str(error).split())[:300]}") from None
    # Ray has put its own handler in place.
    end_on_signals()
    ended = threading.Event()
    if address is not None:
        head = str(context.address_info["gcs_address"])
        threading.Thread(target=_end_without_head, args=(head, ended), daemon=True).start()
    try:
        if dashboard is not None and context.dashboard_url:
            print(f"Dashboard: http://{context.dashboard_url} (`ray get-auth-token` prints its token)")
        yield
    finally:
        ended.set()
        ray.shutdown()


@contextlib.contextmanager
def ended_after(seconds: float, problem: str) -> Iterator[None]:
    """End this process, as on bad input, if the block has not ended by then.

    For Ray's start, which may wait without limit in compiled code that not even Ctrl-C interrupts.
    """

    def end() -> None:
        print(
            f"error: {problem}: no answer after {seconds:g} s; the same command tries again",
            file=sys.stderr,
            flush=True,
        )
        os._exit(BAD_INPUT)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_without_head(head: str, ended: threading.Event) -> None:
    """End this process once the cluster's head refuses connections for a while: Ray would, without a word."""
    host, _, port = head.rpartition(":")
    refused: float | None = None
    while not ended.wait(1):
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        except ConnectionRefusedError:
            refused = refused or time.monotonic()
        except OSError:
            # The network, not the head: Ray bears that for a minute.
            continue
        else:
            refused = None
        if refused is not None and time.monotonic() - refused > _HEADLESS_SECONDS:
            told = f"the Ray head at {head} has ended: what is finished is kept, and the same command goes on"
            print(f"error: {told}, once there is one.", file=sys.stderr, flush=True)
            os._exit(FAILED)


def check_address(address: str) -> re.Match[str] | None:
    """An address taken apart; None for ``auto``.

    Raises:
        InputError: it is not ``auto`` or HOST:PORT.
    """
    match = _HOST_PORT.fullmatch(address)
    if address != "auto" and (match is None or not 0 < int(match["port"]) < 2**16):
        raise InputError(
            f"--address {address!r} is not auto or HOST:PORT, such as {address.split('/')[-1].split(':')[0] or 'head'}"
            ":6379 (the port of `ray start --head`); the command is to run on a node of the cluster, or by "
            "`ray job submit`"
        )
    return match


def require_answer(address: str) -> None:
    """See that a Ray head answers at an address and takes our token, since a join would try for long.

    Raises:
        InputError: it is not ``auto`` or HOST:PORT, nothing answers, or another token is wanted.
    """
    match = check_address(address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if match is not None:
        command += ["--address", address]
        try:
            place = match["host"].strip("[]"), int(match["port"])
            socket.create_connection(place, _ANSWER_SECONDS).close()
        except OSError as error:
            raise InputError(f"no Ray cluster answers at {address!r}: {error}") from None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
        said = done.stderr.strip().splitlines() if done.returncode else []
    except subprocess.TimeoutExpired:
        said = [f"no answer in {_CHECK_SECONDS:g} s"]
    if any("AuthenticationError" in line for line in said):
        given = [n for n in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(n)]
        if given and os.environ.get("RAY_AUTH_MODE") == "token":
            raise InputError(f"the Ray cluster at {address!r} wants another token than that in {given[0]}")
        raise InputError(
            f"the Ray cluster at {address!r} wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH"
        )
    if said:
        raise InputError(
            f"no healthy Ray cluster at {address!r}: {said[-1][:300]} (is it the port of `ray start --head`?)"
        )


def require_guarded(host: str) -> None:
    """Whoever reaches the dashboard may run code: beyond this machine it must ask for a token."""
    if host not in ("127.0.0.1", "localhost", "::1") and os.environ.get("RAY_AUTH_MODE") == "disabled":
        raise InputError(
            f"--dashboard-host {host} would let anyone who reaches it run code here, since RAY_AUTH_MODE is "
            "disabled: set it to token, or use 127.0.0.1"
        )


def require_free(host: str, port: int) -> None:
    """
    Raises:
        InputError: the dashboard cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"the dashboard cannot listen on {host}:{port} ({error.strerror or error}): choose another "
                "--dashboard-port or --dashboard-host"
            ) from None
