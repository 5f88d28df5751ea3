"""What happens: rules, state, ports and errors. Imports neither ray nor the folders that stand on it."""
