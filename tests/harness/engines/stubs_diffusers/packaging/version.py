"""The order of versions such as 0.33.0.dev0 and 0.33.0."""

import functools
import re


@functools.total_ordering
class Version:
    def __init__(self, text):
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.dev\d+)?", text)
        self.key = (*map(int, found.group(1, 2, 3)), not found.group(4))

    def __eq__(self, other):
        return self.key == other.key

    def __lt__(self, other):
        return self.key < other.key
