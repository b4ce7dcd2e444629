"""Shared set-up: until the extension is built, its batched parts are played by the NumPy reference."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import native_double

import cadenza

if not hasattr(cadenza, "_native"):
    try:
        import cadenza._native
    except ImportError:
        sys.modules["cadenza._native"] = native_double
        cadenza._native = native_double
