"""Codes to bytes and back: exact, in numpy, knowing nothing of formats or files."""
