"""How PostgreSQL keeps the hot tables; other databases have no such settings."""

from django.db import migrations


def keep_room(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    # A lane is updated with every claim and release, a pending delivery once or more: room on the
    # page lets an update that touches no index stay on it.
    schema_editor.execute("ALTER TABLE webhooks_lane SET (fillfactor = 70)")
    schema_editor.execute("ALTER TABLE webhooks_deliverystats SET (fillfactor = 70)")
    schema_editor.execute("ALTER TABLE webhooks_delivery SET (fillfactor = 85)")


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]

    operations = [migrations.RunPython(keep_room, migrations.RunPython.noop, elidable=False)]
