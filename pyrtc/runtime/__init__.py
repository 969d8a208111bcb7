"""Turning what was asked of a container into a running one: its plan, its rights, its limits."""
