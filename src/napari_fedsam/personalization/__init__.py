"""Inserted modules, methods, and the frozen/shared/local parameter partition."""
