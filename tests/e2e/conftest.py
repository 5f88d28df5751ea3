from collections.abc import Iterator

import pytest

from tests.e2e.live import Live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """An installation that is not started yet: `live.run("up")` starts it, and is quick when it runs already."""
    live = Live.in_folder(tmp_path_factory.mktemp("live"))
    yield live
    live.close()
    assert live.left() == []
