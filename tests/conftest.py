"""Shared by all tests: one thread, and properties that draw the same examples in every run."""

import os

import hypothesis
import torch

# The nets are tiny: threads cost more than they give, and one thread makes sums repeat bit for bit.
torch.set_num_threads(1)

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
