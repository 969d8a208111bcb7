"""A first container, and what it got."""
