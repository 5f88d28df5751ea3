"""Turn-based entities: one owner per id, one message at a time, journalled before they answer."""
