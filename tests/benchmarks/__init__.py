"""Tests of the benchmarks: of what they compute and write, not of times."""
