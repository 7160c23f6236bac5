"""Label tables: read, joined to images by path, and their columns taken for what they are."""

from diffae.data.labels.labels import Labels, align, load_labels, write_labels

__all__ = ["Labels", "align", "load_labels", "write_labels"]
