"""Setting installers up to use teepi, and taking that back.

Whatever the format, teepi's lines stand between two marks (``marks``), and the lines that they replace stand there as
comments. So the file itself says how to undo it, byte for byte, and everything around stays as its owner wrote it.
"""
