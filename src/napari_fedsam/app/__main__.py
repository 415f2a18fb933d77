"""`python -m napari_fedsam.app`: the `napari-fedsam` command."""

from napari_fedsam.app.cli import main

main()
