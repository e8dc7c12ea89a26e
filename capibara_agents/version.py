"""Which Capibara this is: for the rooms below the package's own face, which imports them."""

__version__ = "0.1.0"
