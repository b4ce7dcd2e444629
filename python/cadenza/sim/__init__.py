"""Simulation: a robot's model with the motor law, batches of simulations, and gymnasium views of tasks."""
