"""What an operator wants to know of the whole: reports on projects, models and money, and alerts."""
