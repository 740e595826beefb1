"""Measuring decoded clips: metrics, a built-in test clip and side-by-side pictures.

Needs the extra `gvcc[eval]`; nothing of the codec itself imports this package.
"""
