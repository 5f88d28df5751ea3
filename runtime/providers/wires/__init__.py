"""The wire formats that clients speak, each translated into a `ChatRequest` and back."""
