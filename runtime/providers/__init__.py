"""Model calls: one typed request, the wires and SDKs it goes over, and what each failure leads to."""
