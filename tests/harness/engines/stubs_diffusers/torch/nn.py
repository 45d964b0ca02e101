"""Modules with children, one weight, and forward hooks."""

from . import Tensor, float32


class Handle:
    def __init__(self, hooks, hook):
        self.hooks, self.hook = hooks, hook

    def remove(self):
        self.hooks.remove(self.hook)


class Module:
    buffer_names = ()

    def __init__(self, **children):
        self.children, self.hooks, self.calls = children, [], 0
        self.path, self.fault = "", {}
        self.weight = Tensor([0.0] * 4, (4,), float32)

    def __call__(self, value):
        result = self.forward(value)
        for hook in list(self.hooks):
            hook(self, (value,), result)
        return result

    def named_modules(self, prefix=""):
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def parameters(self):
        return [module.weight for _, module in self.named_modules()]

    def buffers(self):
        return [getattr(m, name) for _, m in self.named_modules() for name in m.buffer_names]

    def state_dict(self, keep_vars=False):
        state = {
            f"{path}.{name}" if path else name: getattr(module, name)
            for path, module in self.named_modules()
            for name in ("weight", *module.buffer_names)
        }
        return state if keep_vars else {name: t.to(copy=True) for name, t in state.items()}

    def to(self, wanted):
        for tensor in [*self.parameters(), *self.buffers()]:
            if tensor.is_floating_point() or isinstance(wanted, str):
                tensor.data = tensor.to(wanted)
        return self

    def register_forward_hook(self, hook):
        self.hooks.append(hook)
        return Handle(self.hooks, hook)
