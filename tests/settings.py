"""Settings of the test project.

``WEBHOOKS_TEST_DB`` chooses the database: ``sqlite`` (default), ``postgres`` or ``mariadb``.
``WEBHOOKS_TEST_DB_NAME`` names an existing database: processes that a test starts work on it.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "tests-only-0123456789-0123456789-0123456789-0123456789"
USE_TZ = True
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["*"]
DEBUG = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "rest_framework",
    "oauth2_provider",
    "django_q",
    "webhooks",
    "tests.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

VENDOR = os.environ.get("WEBHOOKS_TEST_DB", "sqlite")
NAME = os.environ.get("WEBHOOKS_TEST_DB_NAME")
if VENDOR == "postgres":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
            "NAME": NAME or "postgres",
        }
    }
elif VENDOR == "mariadb":
    import pymysql

    # Django asks for mysqlclient by version; PyMySQL stands in for it and needs no compiler.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.mysql",
            "HOST": os.environ.get("MARIADB_HOST", "127.0.0.1"),
            "PORT": os.environ.get("MARIADB_PORT", "3306"),
            "USER": os.environ.get("MARIADB_USER", "root"),
            "PASSWORD": os.environ.get("MARIADB_PASSWORD", ""),
            "NAME": NAME or "test",
            "OPTIONS": {"charset": "utf8mb4"},
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": NAME or str(BASE_DIR / "var" / "tests.sqlite3"),
            # A file, not memory: the processes that a test starts work on the same database.
            "TEST": {"NAME": str(BASE_DIR / "var" / f"tests-{os.getpid()}.sqlite3")},
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
    (BASE_DIR / "var").mkdir(exist_ok=True)

Q_CLUSTER = {
    "name": "tests",
    "workers": 2,
    "queue_limit": 2,
    "timeout": 90,
    "retry": 120,
    "ack_failures": True,
    "save_limit": 50,
    "catch_up": False,
    "poll": 0.2,
}
if os.environ.get("WEBHOOKS_TEST_BROKER") == "redis":
    Q_CLUSTER["redis"] = {
        "host": os.environ.get("REDIS_HOST", "127.0.0.1"),
        "port": int(os.environ.get("REDIS_PORT", "6379")),
        "db": int(os.environ.get("REDIS_DB", "9")),
    }
else:
    Q_CLUSTER["orm"] = "default"

OAUTH2_PROVIDER = {"SCOPES": {"webhooks:read": "Read", "webhooks:write": "Write"}}
WEBHOOKS = {
    "ENCRYPTION_KEYS": ["rUnX0Jj2fGZS1tnVbH0KXJ7bV1m8eSP9yTTIOJ0oVUk="],
    "ALLOW_HTTP": True,
    "ALLOWED_NETWORKS": ["127.0.0.0/8"],
    "ALLOWED_PORTS": "any",
}
WEBHOOKS_FROM_ENV = os.environ.get("WEBHOOKS_TEST_SETTINGS")
if WEBHOOKS_FROM_ENV:
    # Tests that start processes hand them their settings this way.
    import json

    WEBHOOKS |= json.loads(WEBHOOKS_FROM_ENV)

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
