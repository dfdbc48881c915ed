"""One number for all: how many calls to the external system may be in flight at once."""

IN_FLIGHT = 256
