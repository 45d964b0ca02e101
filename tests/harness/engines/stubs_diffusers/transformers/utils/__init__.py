"""See logging.py."""
