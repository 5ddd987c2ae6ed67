"""Settings of the example project: a push-campaign product with webhooks.

It is the authorization server of its API as well: clients get their tokens from ``/o/token/``.
Everything runs on one SQLite file and on django-q2's ORM broker, so nothing but Python has to be
installed. The shape is that of a production service: webhook tasks have a django-q2 cluster of
their own, so slow receivers never starve the product's other tasks. Start it with

    Q_CLUSTER_NAME=webhooks python manage.py qcluster

The name comes from the environment, because django-q2 reads its configuration when it is imported:
``qcluster --name`` is too late where processes are forked.
"""

import os
from importlib.util import find_spec
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# Keys for a demo on one's own machine. A real project reads both from its secret store.
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY", "example-only-" + "insecure-" * 6)
ENCRYPTION_KEY = os.environ.get(
    "EXAMPLE_ENCRYPTION_KEY", "YYUp1R49-ffVF-rDwsWfB8pomSqkkwwo3m4VhH4rbmM="
)

# Off by default: with it, Django keeps every SQL statement in memory, in the workers too.
DEBUG = os.environ.get("EXAMPLE_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "oauth2_provider",
    "django_q",
    "webhooks",
    "example_project.campaigns",
    # The reference page of the API and its assets, with the extra ``schema``.
    *(name for name in ("drf_spectacular", "drf_spectacular_sidecar") if find_spec(name)),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "example_project.csp.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    # The admin in the language that the browser asks for.
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"
STATIC_URL = "static/"
# Where users log in to grant an application access to their webhooks; staff and others alike.
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "oauth2_provider:authorized-token-list"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE") or str(BASE_DIR / "db.sqlite3"),
        "OPTIONS": {
            # A writer takes its lock when its transaction begins: one that began as a reader and
            # wrote later would fail at once, without waiting, whenever another had written.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # Readers never wait for the writer; with WAL, NORMAL cannot corrupt the file.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}

# ``retry`` above ``timeout`` above the length of a drain, failures acknowledged, and no more
# tasks prefetched than there are workers: otherwise django-q2 re-runs tasks that still run, and
# tasks wait in the memory of a cluster that is stopping. ``manage.py check`` watches over this.
Q_CLUSTER = {
    "name": "example",
    "orm": "default",
    "workers": 2,
    "queue_limit": 2,
    "timeout": 90,
    "retry": 120,
    "ack_failures": True,
    "catch_up": False,
    "save_limit": 50,
    "ALT_CLUSTERS": {
        "webhooks": {
            "workers": 2,
            "queue_limit": 2,
            "timeout": 90,
            "retry": 120,
            "ack_failures": True,
            "catch_up": False,
            "save_limit": 50,
        },
    },
}

# The scopes of the API, and what RFC 9700 (best current practice) asks of an authorization server.
OAUTH2_PROVIDER = {
    "SCOPES": {
        "webhooks:read": "Read your webhook subscriptions, events and deliveries",
        "webhooks:write": "Subscribe, change and test your webhooks, and have events sent again",
    },
    # Seconds. A token that leaks is good for an hour; the grant lasts as long as it is used at
    # least once a month. Subscriptions live as long as the grant, whatever becomes of the tokens.
    "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
    "REFRESH_TOKEN_EXPIRE_SECONDS": 30 * 24 * 3600,
    "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "PKCE_REQUIRED": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,  # S256 alone
    # Tokens in the query string end up in logs: the Authorization header alone is accepted.
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    # Only their digests are stored.
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
}

WEBHOOKS = {
    "CLUSTER": "webhooks",
    "ENCRYPTION_KEYS": [ENCRYPTION_KEY],
    # The demo's subscribers listen on this machine, over plain HTTP and on any free port. Without
    # these three, such callback URLs are refused, as they must be in production.
    "ALLOW_HTTP": True,
    "ALLOWED_NETWORKS": ["127.0.0.0/8"],
    "ALLOWED_PORTS": "any",
    # Seconds, and short on purpose: the demo's subscribers fail a tenth of all requests, and one
    # wants to see those deliveries succeed within the minute. The default takes three days.
    "RETRY_SCHEDULE": (1, 2, 4, 8, 15, 30),
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    # django-q2 tells of every task at INFO.
    "loggers": {"django-q": {"level": "WARNING"}},
}
