"""A person's side: which projects are theirs and what they are being asked."""
