"""Real super-resolution on small ARM boards, on a completely open software stack."""
