"""Shared set-up: until the extension is built, its batched parts are played by the NumPy reference."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
try:
    import cadenza  # noqa: F401
except ImportError:
    import native_double

    sys.modules["cadenza._native"] = native_double

torch.set_num_threads(1)
