"""See both.py."""
