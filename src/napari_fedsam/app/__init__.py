"""Command line, demo and benchmarks: compose everything below."""
