"""Real super-resolution on small ARM boards, on a completely open software stack."""

__version__ = "0.1.0"
