"""Credits for money: what is sold, and whoever takes the money and confirms it."""
