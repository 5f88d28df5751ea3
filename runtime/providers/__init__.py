"""Model calls: the catalogue of models and prices, SDK adapters, key-pool rules."""
