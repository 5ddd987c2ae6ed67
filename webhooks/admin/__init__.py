"""The admin's pages: one module for each, on the stock admin alone."""

from webhooks.admin import logs, subscription

__all__ = ["logs", "subscription"]
