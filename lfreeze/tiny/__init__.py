"""The embedded suite: a small language with labels derived by logic, five tasks in it, three tiny models."""
