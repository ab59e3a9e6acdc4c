"""Commands: `fsmis`, and those of `tools/` that need nothing but this package."""
