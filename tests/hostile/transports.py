"""The transports as a worker loads them, made to trust the hostile receiver's authority."""

from __future__ import annotations

import os

from webhooks.transports import requests


class RequestsTransport(requests.RequestsTransport):
    ca_file = os.environ["HOSTILE_CA_FILE"]
