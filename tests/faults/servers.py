"""Database and broker servers of a test's own, which it may stop and restart as it likes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Missing(RuntimeError):
    """The server's programs are not installed here, or may not be run."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Redis:
    """A Redis on a port of its own, that keeps nothing on disk."""

    def __init__(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise Missing("redis-server is not installed")
        self._program = program
        self._place = tempfile.mkdtemp(prefix="webhooks-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.start()

    @property
    def environ(self) -> dict[str, str]:
        """Hand this to processes whose broker it is."""
        return {
            "WEBHOOKS_TEST_BROKER": "redis",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.port),
            "REDIS_DB": "0",
        }

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._place)
        self._process = subprocess.Popen(
            [self._program, "--port", str(self.port), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise Missing("redis-server does not start") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """As a machine that fails: all that it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def flush(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.flushall()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._place, ignore_errors=True)


class Postgres:
    """A PostgreSQL cluster of its own. It may crash: what was committed is in the system's cache,
    so nothing has to wait for the disk."""

    def __init__(self) -> None:
        self._programs = self.programs()
        # PostgreSQL refuses to run as root.
        self._as: list[str] = []
        self._place = Path(tempfile.mkdtemp(prefix="webhooks-pg-"))
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                raise Missing("there is no user 'postgres' to run PostgreSQL as") from None
            os.chown(self._place, owner.pw_uid, owner.pw_gid)
            ids = (f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")
            self._as = ["setpriv", *ids]
        self.port = free_port()
        try:
            self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--no-locale")
            self._control("start")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def programs() -> Path:
        """The folder of PostgreSQL's programs; raises Missing."""
        packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        found = shutil.which("pg_ctl") or (str(packaged[-1]) if packaged else None)
        if found is None:
            raise Missing("PostgreSQL's programs are not installed")
        return Path(found).resolve().parent

    @property
    def environ(self) -> dict[str, str]:
        return {
            "WEBHOOKS_TEST_DB": "postgres",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": "",
        }

    def _run(self, program: str, *arguments: str) -> None:
        data = str(self._place / "data")
        done = subprocess.run(
            [*self._as, str(self._programs / program), "-D", data, *arguments],
            cwd=self._place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace")[-500:]
            raise Missing(f"{program} {arguments[-1]} failed: {said}")

    def _control(self, what: str, *arguments: str) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._place}"
            " -c fsync=off -c full_page_writes=off -c max_connections=60"
        )
        log = str(self._place / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", options, *arguments, what)

    def restart(self) -> None:
        """As after a crash: every connection breaks, and it recovers from its log."""
        self._control("restart", "-m", "immediate")

    def close(self) -> None:
        with contextlib.suppress(Missing, subprocess.TimeoutExpired):
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._place, ignore_errors=True)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still for a while, as in a paused machine."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
