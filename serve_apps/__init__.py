"""Its doors: Ray Serve applications."""
