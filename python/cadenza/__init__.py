"""Cadenza takes a robot policy from simulation to the motor bus: train, export, run in a real-time loop.

Importing the package needs numpy only; training, simulation and export import their libraries themselves.
"""

from cadenza._native import __version__
from cadenza.robot import Robot, load_robot

__all__ = ["Robot", "__version__", "load_robot"]
