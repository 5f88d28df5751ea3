"""Provider keys: their limits and turns, permits in advance, and how they are kept."""
