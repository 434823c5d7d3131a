"""The doors in napari: one widget per step, with the reader, the writer and the sample data."""
