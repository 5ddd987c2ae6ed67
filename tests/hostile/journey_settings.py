"""The test project with everything that it logs, at DEBUG, in the file ``WEBHOOKS_TEST_LOG``."""

import os

from tests.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"full": {"format": "%(process)d %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "file": {
            "class": "logging.FileHandler",
            "filename": os.environ["WEBHOOKS_TEST_LOG"],
            "formatter": "full",
        }
    },
    "root": {"level": "DEBUG", "handlers": ["file"]},
    # Loggers with a level of their own speak up as well.
    "loggers": {
        name: {"level": "DEBUG", "handlers": ["file"], "propagate": False}
        for name in ("django", "django-q", "urllib3", "requests", "oauth2_provider")
    },
}
