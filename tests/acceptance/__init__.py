"""The lines of the specifications' acceptance lists, each as a test of its number, through the doors."""
