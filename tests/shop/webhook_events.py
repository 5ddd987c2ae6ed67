"""Event types of the test project."""

from webhooks import catalog

catalog.register("order.paid", title="Order paid", example={"order": 1})
catalog.register("order.shipped", title="Order shipped", example={"order": 1})
catalog.register("shop.order.refunded", title="Order refunded", example={"order": 1})
catalog.register("shop.closed", title="Shop closed", audience="everyone", example={"day": "Monday"})
