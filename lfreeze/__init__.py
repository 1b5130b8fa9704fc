"""Selective layer freezing for transformer fine-tuning."""
