from tests.e2e.conftest import live

__all__ = ["live"]
