"""The napari side: layers, panels, keys, readers and writers."""

from napari_fedsam.widgets.beside_opengl import keep_triton_out

# Before any module of this package imports torch.
keep_triton_out()
