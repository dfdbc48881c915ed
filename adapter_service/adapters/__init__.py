"""One module per kind of external system; its name is what a target's `adapter` says.

Each has `build(target, calls) -> Adapter`, and checks its own keys of the targets file there.
"""
