"""A Ray session: started on this machine, or joined on a cluster; failures are reported in one sentence."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lfreeze.errors import InputError
from reproduce.process import (
    CONTINUES,
    FAILED,
    end_on_signals,
    garbage_kept,
    removed_at_once,
    set_environment,
    signals_held,
)
from reproduce.run.preflight import OBJECT_STORE_BYTES
from reproduce.run.traces import (
    held,
    make_private,
    private_files,
    remove_abandoned,
    remove_dangling,
    without_copied_credentials,
    without_credentials,
)
from reproduce.terminal import say

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

        from reproduce.run.tune_compat import SESSIONS, TOKEN_FILE, services_in_own_groups

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
    groups: list[int] = []
    ended = threading.Event()
    with removed_at_once(lambda: _remove(groups)), contextlib.ExitStack() as session:
        try:
            try:
                with contextlib.ExitStack() as start:
                    start.enter_context(ended_after(_JOIN_SECONDS, problem))
                    start.enter_context(services_in_own_groups(groups))
                    start.enter_context(without_credentials())
                    start.enter_context(private_files())
                    context = ray.init(**options)
            except Exception as error:
                raise InputError(f"{problem}: {' '.join(str(error).split())[:300]}") from None
            # Ray has installed its own handlers.
            end_on_signals()
            make_private(TOKEN_FILE)
            if address is not None:
                head = str(context.address_info["gcs_address"])
                threading.Thread(target=_end_without_head, args=(head, ended), daemon=True).start()
            else:
                folder = Path(context.address_info["session_dir"])
                remove_abandoned(folder.parent, SESSIONS)
                session.enter_context(held(folder))
            if dashboard is not None and context.dashboard_url:
                say(f"Dashboard: http://{context.dashboard_url} (`ray get-auth-token` prints its token)")
            with without_copied_credentials():
                yield
        finally:
            with signals_held():
                ended.set()
                ray.shutdown()
                _remove(groups)
                end_on_signals()


def _remove(groups: Sequence[int]) -> None:
    """End the services of a session on this machine, and remove its folder."""
    from reproduce.run.tune_compat import SESSIONS, end_groups, ray_temporary_folder

    end_groups(groups)
    folder = ray_temporary_folder()
    if groups and folder.is_dir():
        # Also that of a session whose start was interrupted.
        for session in folder.glob(f"{SESSIONS}_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
        remove_dangling(folder)


@contextlib.contextmanager
def ended_after(seconds: float, problem: str) -> Iterator[None]:
    """End this process if the block takes longer, with a sentence and the status of failures.

    For Ray's start, which can wait without limit in compiled code: that neither Ctrl-C nor a thread of the
    interpreter interrupts, only a timer that is compiled too.
    """
    sentence = f"error: {problem}: no answer after {seconds:g} s; run the same command to try again"
    # It says the sentence when the timer writes, and nothing when this process ends or goes on.
    speaker = subprocess.Popen(
        ["sh", "-c", 'read -r line && printf "%s\\n" "$0" >&2; exit 0', sentence],
        stdin=subprocess.PIPE,
        process_group=0,
    )
    assert speaker.stdin is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=speaker.stdin)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        speaker.stdin.close()
        speaker.wait()


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
