"""The example project as it is, and in the language that a browser asks for."""

from example_project.settings import *  # noqa: F403
from example_project.settings import MIDDLEWARE

MIDDLEWARE = [
    *MIDDLEWARE[: (_place := MIDDLEWARE.index("django.middleware.common.CommonMiddleware"))],
    "django.middleware.locale.LocaleMiddleware",
    *MIDDLEWARE[_place:],
]
