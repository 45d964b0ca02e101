"""Progress bars, and a log that says no more than warnings, as the library's."""

import logging

from stub_state import log

logging.getLogger("diffusers").setLevel(logging.WARNING)
logging.getLogger("diffusers").propagate = False


def disable_progress_bar():
    log("disable_progress_bar", library="diffusers")
