"""The languages people are spoken to in: which one somebody gets, and its texts."""
