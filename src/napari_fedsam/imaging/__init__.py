"""Scans and masks in and out through SimpleITK, with their geometry."""
