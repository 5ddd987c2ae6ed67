"""What the tables need that Django's fields cannot say: storage, and exact comparison of text."""

from django.db import migrations


def keep_room(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    # A lane is updated with every claim and release, a pending delivery once or more: room on the
    # page lets an update that touches no index stay on it.
    schema_editor.execute("ALTER TABLE webhooks_lane SET (fillfactor = 70)")
    schema_editor.execute("ALTER TABLE webhooks_deliverystats SET (fillfactor = 70)")
    schema_editor.execute("ALTER TABLE webhooks_delivery SET (fillfactor = 85)")


#: Texts that say who, what, or which: "app:Shop" and "app:shop" are two requesters.
EXACT = (
    ("webhooks_subscription", "requester", "varchar(255) {} NOT NULL"),
    ("webhooks_event", "requester", "varchar(255) {} NOT NULL"),
    ("webhooks_event", "type", "varchar(128) {} NOT NULL"),
    ("webhooks_event", "idempotency_key", "varchar(255) {} NULL"),
    ("webhooks_deliverystats", "type", "varchar(128) {} NOT NULL"),
)


def compare_exactly(apps, schema_editor):
    if schema_editor.connection.vendor != "mysql":
        return
    # By default it ignores case, accents and trailing spaces; MySQL calls the same collation
    # utf8mb4_0900_bin.
    mariadb = schema_editor.connection.mysql_is_mariadb
    collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    for table, column, kind in EXACT:
        kind = kind.format(f"CHARACTER SET utf8mb4 COLLATE {collation}")
        schema_editor.execute(f"ALTER TABLE {table} MODIFY {column} {kind}")


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]

    operations = [
        migrations.RunPython(keep_room, migrations.RunPython.noop),
        # Not in a transaction: MariaDB cannot roll such statements back, and Django refuses them.
        migrations.RunPython(compare_exactly, migrations.RunPython.noop, atomic=False),
    ]
