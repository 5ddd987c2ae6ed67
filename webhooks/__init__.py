"""An outgoing webhook service for any Django project.

The public names are loaded on first use, so that ``import webhooks`` is safe before Django's
apps are ready. Everything else is reached through its own module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "aemit", "catalog", "emit", "emit_many"]

if TYPE_CHECKING:
    from webhooks import catalog
    from webhooks.emission import aemit, emit, emit_many


def __getattr__(name: str) -> Any:
    if name in {"emit", "emit_many", "aemit"}:
        from webhooks import emission

        return getattr(emission, name)
    if name == "catalog":
        import importlib

        return importlib.import_module("webhooks.catalog")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
