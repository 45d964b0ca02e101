"""See Image.py."""
