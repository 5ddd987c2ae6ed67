"""``python -m tests.simulator [--lanes 2000] [--hours 3] [--plot pacing.svg]``"""

import os

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.simulator.report import main

    main()
