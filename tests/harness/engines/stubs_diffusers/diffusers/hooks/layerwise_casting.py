"""What is not cast."""

DEFAULT_SKIP_MODULES_PATTERN = ("norm", "^proj_out$")
