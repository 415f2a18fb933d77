"""`napari-fedsam benchmark`: methods against each other, and this machine's speed."""
