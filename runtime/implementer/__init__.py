"""Edit engines, the sandbox they and the generated code run in, and the work they are given."""
