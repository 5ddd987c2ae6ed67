"""A host project's model, for tests."""

from django.db import models


class Order(models.Model):
    number = models.CharField(max_length=20)
    owner = models.CharField(max_length=50, default="app:shop")

    def __str__(self) -> str:
        return self.number
