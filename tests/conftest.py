"""Shared set-up."""

import sys
from pathlib import Path

import torch

# `native_double` is imported by tests in subfolders as well
sys.path.insert(0, str(Path(__file__).parent))

# more threads change the last bits
torch.set_num_threads(1)
