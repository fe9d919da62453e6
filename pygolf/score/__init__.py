"""Scoring: sliding windows, what the weights have seen, and the rules that a tool can check."""
