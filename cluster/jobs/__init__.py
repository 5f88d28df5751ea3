"""What runs as a job of Ray, beside the service."""
