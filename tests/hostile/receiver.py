"""A receiver that does everything that strangers may do to us, as a process of its own.

    python -m tests.hostile.receiver FOLDER

Writes its certificates into FOLDER and one line of JSON to its output: ``ca_file``, the base URLs
``http`` and ``https`` (append the name of a mode, see ``modes.py``) and the URLs of ``ports`` by
name. It ends when its input ends, so that it cannot outlive who started it.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from tests.hostile import modes, ports
from tests.transports.certificates import Authority
from tests.transports.receivers import Receiver


def main(folder: str) -> None:
    trusted, strange = (Authority(_folder(folder, name)) for name in ("trusted", "strange"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        Receiver(modes.by_path) as plain,
        Receiver(modes.by_path, tls=trusted.server("127.0.0.1")) as tls,
        ports.listening(trusted, strange) as urls,
    ):
        print(
            json.dumps(
                {
                    "ca_file": str(trusted.ca_file),
                    "http": f"http://127.0.0.1:{plain.port}/",
                    "https": f"https://127.0.0.1:{tls.port}/",
                    "ports": urls,
                }
            ),
            flush=True,
        )
        sys.stdin.read()


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(*sys.argv[1:])
