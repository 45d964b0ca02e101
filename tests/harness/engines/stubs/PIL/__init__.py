"""A stub of Pillow: see Image.py."""
