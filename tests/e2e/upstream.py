"""What stands behind the model door in these tests: a provider of each wire."""

from tests.e2e.live import Live

GPT = "openai/gpt-4o-mini"
CLAUDE = "claude/claude-3-5-haiku-20241022"
GEMINI = "gemini/gemini-2.0-flash"
MODELS = (GPT, CLAUDE, GEMINI)


def three_wires(root_url: str, keys: tuple[str, str, str]) -> dict[str, str]:
    """The variables that make one address the provider of all three wires."""
    openai, anthropic, gemini = keys
    return {
        "OPENAI_BASE_URL": f"{root_url}/v1",
        "OPENAI_API_KEY": openai,
        "ANTHROPIC_BASE_URL": root_url,
        "ANTHROPIC_API_KEY": anthropic,
        "GEMINI_BASE_URL": root_url,
        "GEMINI_API_KEY": gemini,
    }


def simulated(live: Live, keys: tuple[str, str, str] = ("sim-openai", "sim-anthropic", "sim-gemini")) -> dict[str, str]:
    """The same, after starting a simulator."""
    return three_wires(live.start_simulator()["OPENAI_BASE_URL"].removesuffix("/v1"), keys)
