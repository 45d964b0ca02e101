"""A picture is its path and mode."""

import builtins


class Image:
    def __init__(self, path, mode):
        self.path, self.mode = path, mode

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def convert(self, mode):
        return Image(self.path, mode)


def open(path):
    builtins.open(path, "rb").close()
    return Image(path, "P")
