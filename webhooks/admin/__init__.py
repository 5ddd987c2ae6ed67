"""The admin's pages: one module for each, on the stock admin alone."""

from webhooks.admin import delivery, event, health, logs, subscription

__all__ = ["delivery", "event", "health", "logs", "subscription"]
