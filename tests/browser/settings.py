"""The example project as it is, and in a language that is read from right to left besides."""

from example_project.settings import *  # noqa: F403
from example_project.settings import LANGUAGES

#: Django's own texts are in Arabic then, and turn the pages round; ours stay as they are.
LANGUAGES = [*LANGUAGES, ("ar", "Arabic")]
