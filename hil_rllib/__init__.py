"""Human-in-the-loop reinforcement learning for robot manipulation on Ray RLlib."""

__version__ = "0.1.0"
