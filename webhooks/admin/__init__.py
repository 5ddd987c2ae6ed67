"""The admin's pages: one module for each, on the stock admin alone."""

from webhooks.admin import health, logs, subscription

__all__ = ["health", "logs", "subscription"]
