"""Flower client and server apps, coordinator, site process, keys and audit."""
