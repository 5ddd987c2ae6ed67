"""The product's pages in the admin; importing the modules registers them."""

from example_project.campaigns.admin import campaign, logs

__all__ = ["campaign", "logs"]
