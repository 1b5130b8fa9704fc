"""Faults injected into real sweeps at random moments, each compared with an undisturbed run."""
