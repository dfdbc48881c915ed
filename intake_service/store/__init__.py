"""All SQL of the hub. Writes are operations of chassis.database: `(connection, now, items) -> results`."""
