"""SQL: engine, tables, statements, outages."""
