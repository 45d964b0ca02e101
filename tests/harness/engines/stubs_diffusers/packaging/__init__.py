"""See version.py."""
