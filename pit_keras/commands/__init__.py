"""The commands of `pit-keras`, a module each: `add` describes it, `run` does it."""
