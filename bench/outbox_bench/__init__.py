"""Benchmarks: each measures this service beside the plainest thing that does the same work."""
