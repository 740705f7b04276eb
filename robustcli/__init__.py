"""Train, attack, evaluate and compare image classifiers, with numbers that can be defended."""

__version__ = "0.1.0"
