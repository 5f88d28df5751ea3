import json
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.catalogue.files import MODELS_MAX, models_in
from runtime.catalogue.listing import ListedModel, usd
from runtime.errors import BadInputError, TooLargeError

YAML = """\
models:
  - provider: openai
    model: gpt-4o
    input_cost_per_million_tokens: 2.55
    output_cost_per_million_tokens: "10"
    abilities: [chat, tools]
    effective_from: 2026-12-01
  - {provider: groq, model: "*", input_cost_per_million_tokens: 0, output_cost_per_million_tokens: 0, is_active: false}
"""
JSON = json.dumps(
    [
        {
            "provider": "openai",
            "model": "gpt-4o",
            "input_cost_per_million_tokens": 2.55,
            "output_cost_per_million_tokens": "10",
            "abilities": ["chat", "tools"],
            "effective_from": "2026-12-01T00:00:00Z",
        },
        {
            "provider": "groq",
            "model": "*",
            "input_cost_per_million_tokens": 0,
            "output_cost_per_million_tokens": 0,
            "is_active": False,
            "notes": None,
        },
    ],
    indent="\t",
)
CSV = """\
\ufeffprovider,model,input_cost_per_million_tokens,output_cost_per_million_tokens,abilities,effective_from,is_active
openai,gpt-4o,2.55,10,chat tools,2026-12-01,
groq,*,0,0,,,false

"""


@pytest.mark.parametrize(("text", "form"), [(YAML, "yaml"), (JSON, "json"), (CSV, "csv")])
def test_file__in_each_form_says_the_same(text, form):
    first, second = models_in(text, form)
    assert first.input_cost_per_million_tokens == 2_550_000
    assert first.output_cost_per_million_tokens == 10_000_000
    assert first.abilities == {"chat", "tools"}
    assert first.effective_from.isoformat() == "2026-12-01T00:00:00+00:00"
    assert (second.id, second.is_active, second.profiles) == ("groq/*", False, None)


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("- provider: openai\n  model: x\n  currency: EUR\n", "yaml", "line 3, currency"),
        ("- provider: openai\n  model: x\n  input: 1\n", "yaml", "line 3, input: there is no such field"),
        ("- provider: openai\n  model: x\n  model: y\n", "yaml", "line 3, model: it stands there twice"),
        ("- provider: openai\n", "yaml", "line 1, model: Field required"),
        ("- provider: [openai]\n  model: x\n", "yaml", "line 1, provider"),
        ("- provider: openai\n  model: {a: 1}\n", "yaml", "line 2, model"),
        ("- provider: openai\n  model: '../x'\n", "yaml", "line 2, model"),
        ("- a\n- b\n", "yaml", "line 1: a model must be"),
        ("a: 1\n", "yaml", "must hold a list"),
        ("- [\n", "yaml", "not YAML"),
        ("- &a {provider: openai, model: x}\n- !!python/object:os.system {}\n", "yaml", "line 2"),
        ("[" * 50_000, "yaml", "cannot be read"),
        ("", "yaml", "holds no models"),
        ("[]", "json", "holds no models"),
        ('[{"provider": "openai",\n"model": "x",\n"speed": 11}]', "json", "line 3, speed"),
        ('[{"provider": "openai",}]', "json", "line 1: this is not JSON"),
        ("[" * 200_000, "json", "cannot be read"),
        ("provider,model\nopenai,x,y\n", "csv", "line 2: there are more cells"),
        ("provider,provider\na,b\n", "csv", "line 1: a column stands there twice"),
        ("provider,model,context_tokens\nopenai,x,1\ngroq,y,many\n", "csv", "line 3, context_tokens"),
        ('provider,model\nopenai,"x\n', "csv", "not CSV"),
        ("provider,model,price\nopenai,x,1\n", "csv", "line 2, price: there is no such field"),
    ],
)
def test_file__that_is_wrong_names_line_and_field(text, form, says):
    with pytest.raises(BadInputError) as refused:
        models_in(text, form)
    assert says in refused.value.message
    assert refused.value.next_step
    assert len(str(refused.value)) < 1500


def test_file__with_too_many_models_or_bytes_is_refused():
    with pytest.raises(TooLargeError):
        models_in("provider,model\n" + "openai,x\n" * (MODELS_MAX + 1), "csv")
    with pytest.raises(TooLargeError):
        models_in("#" * (6 << 20), "yaml")


@given(st.text(max_size=200), st.sampled_from(["yaml", "json", "csv"]))
def test_file__of_anything_is_read_or_refused(text, form):
    with suppress(BadInputError):
        models_in(text, form)


@given(st.integers(0, 10**12))
def test_usd__is_exact_both_ways(udollars):
    said = usd(udollars)
    assert Decimal(said) * 10**6 == udollars
    assert ListedModel(provider="p", model="m", input_cost_per_million_tokens=said).input_cost_per_million_tokens == (
        udollars
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_cost_per_million_tokens", -1),
        ("input_cost_per_million_tokens", "nan"),
        ("input_cost_per_million_tokens", "1e-7"),
        ("input_cost_per_million_tokens", "1e9"),
        ("input_cost_per_million_tokens", True),
        ("input_cost_per_million_tokens", "1,5"),
        ("input_cost_per_million_tokens", "1" * 41),
        ("currency", "EUR"),
        ("currency", None),
        ("context_tokens", 0),
        ("context_tokens", 1.5),
        ("context_tokens", True),
        ("context_tokens", 10**9),
        ("output_tokens_max", -1),
        ("abilities", []),
        ("abilities", ["fly"]),
        ("profiles", ["turbo"]),
        ("tier", "gold"),
        ("speed", 0),
        ("is_active", "yes"),
        ("effective_from", "2026-12-01T00:00:00"),
        ("effective_from", 1764547200),
        ("effective_from", "2026-13-01"),
        ("provider", "a/b"),
        ("provider", ""),
        ("model", "a b"),
        ("notes", "x" * 501),
    ],
)
def test_listing__refuses_what_no_model_has(field, value):
    with pytest.raises(ValidationError) as refused:
        ListedModel.model_validate({"provider": "p", "model": "m", field: value})
    assert refused.value.errors()[0]["loc"][:1] in ((field,), ())
