"""The napari dock widget; everything Qt lives here."""
