"""Where it lives: thin Ray actors, one noun each, that own state and lifetime and call runtime/."""
