"""Progress bars."""

from stub_state import log


def disable_progress_bar():
    log("disable_progress_bar", library="transformers")
