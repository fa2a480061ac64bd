"""Decisions and memory: synchronous, without event loop, clock or I/O."""
