"""Updates that come twice, or not in their order."""

import random

from pydantic import BaseModel, ConfigDict, Field


class DisorderSetup(BaseModel):
    """How probable each is for an update; equal seeds choose the same ones, counted by their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    duplicate: float = Field(default=0.0, ge=0, le=1)
    reorder: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0
    hold_s: float = Field(default=0.3, ge=0, le=60)
    """How long the webhook holds back an update that others may overtake."""


class Disorder:
    def __init__(self) -> None:
        self.setup = DisorderSetup()
        self._draws = random.Random(0)

    def set(self, setup: DisorderSetup) -> None:
        self.setup = setup
        self._draws = random.Random(setup.seed)

    def duplicates(self) -> bool:
        return self._draws.random() < self.setup.duplicate

    def reorders(self) -> bool:
        return self._draws.random() < self.setup.reorder
