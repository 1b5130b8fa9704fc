"""A Ray session: started on this machine, or joined on a cluster; failures are reported in one sentence."""

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
from reproduce.process import BAD_INPUT, CONTINUES, FAILED, end_on_signals, garbage_kept, set_environment
from reproduce.run.preflight import OBJECT_STORE_BYTES

_HOST_PORT = re.compile(r"(?P<host>[^:/\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_ANSWER_SECONDS = 5.0
_CHECK_SECONDS = 30.0
_JOIN_SECONDS = 180.0
_HEADLESS_SECONDS = 8.0


@contextlib.contextmanager
def ray_session(address: str | None, dashboard: tuple[str, int] | None = None) -> Iterator[None]:
    """Join the cluster at ``address``, or start Ray on this machine alone; the session ends with the block.

    Args:
        dashboard: host and port of the dashboard of a session on this machine; a cluster has its own.

    Raises:
        InputError: the address is malformed or does not answer, the cluster requires another token or version,
            or Ray does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # The recorder reports a worker's death in one line, and the trial's row if the trial is lost.
    for name in ("execution.tune_controller", "tune"):
        logging.getLogger(f"ray.tune.{name}").setLevel(logging.CRITICAL)
    # Before Ray is imported. Nothing but a requested dashboard listens beyond this machine.
    set_environment(single_machine=address is None)
    with garbage_kept():
        import ray

        from reproduce.run.tune_compat import end_groups, services_in_own_groups

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # Without an address, Ray would follow a stale address file to a dead cluster.
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
        with ended_after(_JOIN_SECONDS, problem), services_in_own_groups() as groups:
            context = ray.init(**options)
    except Exception as error:
        raise InputError(f"{problem}: {' '.join(str(error).split())[:300]}") from None
    # Ray has installed its own handlers.
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
        end_groups(groups)


@contextlib.contextmanager
def ended_after(seconds: float, problem: str) -> Iterator[None]:
    """End this process with the status of bad input if the block takes longer.

    For Ray's start, which can wait without limit in compiled code that Ctrl-C does not interrupt.
    """

    def end() -> None:
        print(
            f"error: {problem}: no answer after {seconds:g} s; run the same command to try again",
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
    """End this process when the cluster's head has refused connections for a while; Ray would do so silently."""
    host, _, port = head.rpartition(":")
    refused: float | None = None
    while not ended.wait(1):
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        except ConnectionRefusedError:
            refused = refused or time.monotonic()
        except OSError:
            # The network failed, not the head; Ray tolerates that for a minute.
            continue
        else:
            refused = None
        if refused is not None and time.monotonic() - refused > _HEADLESS_SECONDS:
            problem = f"the Ray head at {head} has ended: {CONTINUES} once there is a new one"
            print(f"error: {problem}.", file=sys.stderr, flush=True)
            os._exit(FAILED)


def check_address(address: str) -> re.Match[str] | None:
    """The host and port of an address; None for ``auto``.

    Raises:
        InputError: it is not ``auto`` or HOST:PORT.
    """
    match = _HOST_PORT.fullmatch(address)
    if address != "auto" and (match is None or not 0 < int(match["port"]) < 2**16):
        raise InputError(
            f"--address {address!r} is not auto or HOST:PORT, such as {address.split('/')[-1].split(':')[0] or 'head'}"
            ":6379 (the port of `ray start --head`); run the command on a node of the cluster, or with "
            "`ray job submit`"
        )
    return match


def require_answer(address: str) -> None:
    """Check that a Ray head answers at an address and accepts the token; a join would retry for minutes.

    Raises:
        InputError: it is not ``auto`` or HOST:PORT, nothing answers, or another token is required.
    """
    match = check_address(address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if match is not None:
        command += ["--address", address]
        try:
            endpoint = match["host"].strip("[]"), int(match["port"])
            socket.create_connection(endpoint, _ANSWER_SECONDS).close()
        except OSError as error:
            raise InputError(f"no Ray cluster answers at {address!r}: {error}") from None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
        errors = done.stderr.strip().splitlines() if done.returncode else []
    except subprocess.TimeoutExpired:
        errors = [f"no answer in {_CHECK_SECONDS:g} s"]
    if any("AuthenticationError" in line for line in errors):
        variables = [n for n in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(n)]
        if variables and os.environ.get("RAY_AUTH_MODE") == "token":
            raise InputError(
                f"the Ray cluster at {address!r} requires a token other than the one in {variables[0]}"
            )
        raise InputError(
            f"the Ray cluster at {address!r} requires a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH"
        )
    if errors:
        raise InputError(
            f"no healthy Ray cluster at {address!r}: {errors[-1][:300]} (is it the port of `ray start --head`?)"
        )


def require_guarded(host: str) -> None:
    """Check that a dashboard that other machines can reach requires a token: it allows anyone to run code.

    Raises:
        InputError: it would require none.
    """
    if host not in ("127.0.0.1", "localhost", "::1") and os.environ.get("RAY_AUTH_MODE") == "disabled":
        raise InputError(
            f"--dashboard-host {host} would let anyone who reaches it run code here, since RAY_AUTH_MODE is "
            "disabled: set it to token, or use 127.0.0.1"
        )


def require_free(host: str, port: int) -> None:
    """Check that the dashboard can listen on an address.

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
