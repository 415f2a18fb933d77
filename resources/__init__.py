"""Files shipped with napari-fedsam: icons, the sample scan, the Flower app template."""
