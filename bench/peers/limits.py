"""One number for all: how many calls the external system bears at once."""

#: More than any layout makes on average at the rates measured here (Little's law: 5,000/s of 50 ms are 250 calls); the
#: hub and FastStream make them in waves of some hundreds. What bounds a layout is its own tuning.
IN_FLIGHT = 1024
