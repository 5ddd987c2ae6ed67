"""The admin's pages: one module for each, on the stock admin alone."""

from webhooks.admin import dead_letters, delivery, event, health, logs, subscription, workers

__all__ = ["dead_letters", "delivery", "event", "health", "logs", "subscription", "workers"]
