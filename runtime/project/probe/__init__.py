"""What runs inside the sandbox to try a finished product out. Python's standard library only: nothing else is there."""
