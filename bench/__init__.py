"""`make bench`: what this hub does on this machine, measured from outside. See docs/benchmarks.md."""
