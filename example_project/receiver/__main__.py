"""``python -m example_project.receiver --port N --secret whsec_…``"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import threading

from example_project.receiver.server import Receiver
from example_project.receiver.temper import Temper


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m example_project.receiver",
        description="A webhook subscriber. GET / is its dashboard; GET /figures, /messages and "
        "/digests tell what it received.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="port on 127.0.0.1; 0: any free one, printed")
    where.add_argument("--fd", type=int, help="an inherited socket that listens already")
    parser.add_argument(
        "--secret",
        action="append",
        required=True,
        help="signing secret, whsec_…; repeat it while a secret is being rotated",
    )
    parser.add_argument("--fail", type=float, default=0.0, help="share answered with 500")
    parser.add_argument("--hang", type=float, default=0.0, help="share left without an answer")
    parser.add_argument("--rate-limit", type=float, default=0.0, help="share answered with 429")
    parser.add_argument(
        "--hang-seconds", type=float, default=30.0, help="how long such a request hangs"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of those shares")
    parser.add_argument("--log", metavar="FILE", help="append one JSON line for each POST")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = arguments()
    options = parser.parse_args(argv)
    # Blocked here, in every thread, and waited for below: no handler can interrupt anything.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with contextlib.ExitStack() as stack:
        try:
            temper = Temper(options.fail, options.hang, options.rate_limit, options.seed)
            log = options.log and stack.enter_context(
                open(options.log, "a", buffering=1, encoding="utf-8")
            )
            listening = (
                socket.socket(fileno=options.fd)
                if options.fd is not None
                else ("127.0.0.1", options.port)
            )
            server = stack.enter_context(
                Receiver(
                    listening,
                    options.secret,
                    temper=temper,
                    hang_seconds=options.hang_seconds,
                    log=log or None,
                )
            )
        except (OSError, ValueError) as error:
            parser.error(str(error))
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
        signal.sigwait(ends)
        server.stopping.set()
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
