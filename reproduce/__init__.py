"""The paper's experiment: plan, run, store, verify and report a grid of fine-tuning trials."""
