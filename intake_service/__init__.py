"""Intake: accepts requests durably, owns their state, rings the bell when work is due."""
