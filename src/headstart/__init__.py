"""Julia jobs that start already compiled: build once, sign, publish to CernVM-FS, start anywhere."""

__version__ = "0.1.0"
