"""The paper's experiment: sweep, store, report."""
