"""The embedded suite: a small language whose labels follow from logic, five tasks in it, three tiny models."""
