"""The paper's experiment: sweep, store, report."""

import os

# Read when torch is imported: its profiler otherwise logs each start, stop and allocation.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
