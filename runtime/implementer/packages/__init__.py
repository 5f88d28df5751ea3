"""What a project depends on: read from its manifests, fetched outside the sandbox, installed offline inside it."""
