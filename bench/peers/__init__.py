"""What a Python team could pick instead of the hub, each in one file with its plain and its tuned layout.

All do the same work: accept a document durably over HTTP (202), post it once to the external system, record the end in
the database. They share edge.py and work.py, which are as thin as they can be, to their favour. They run in an
environment of their own (`make bench` makes it) and import nothing of the hub but `chassis.batcher`, which has no
imports of its own.
"""
