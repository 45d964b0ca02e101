"""Pictures are text files that hold their size: 32x16."""


class Image:
    def __init__(self, path, size, mode="L"):
        self.path, self.size, self.mode = path, size, mode

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def convert(self, mode):
        return Image(self.path, self.size, mode)


def open(path):
    with __builtins__["open"](path, encoding="ascii") as file:
        width, height = file.read().split("x")
    return Image(path, (int(width), int(height)))
