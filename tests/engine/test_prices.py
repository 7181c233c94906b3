"""Prices: whose word counts, exact to the nano-dollar, and nothing has to wait for them."""

import asyncio
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from genai_prices import Usage as TableUsage
from genai_prices import calc_price
from genai_prices.types import ModelPrice, Tier, TieredPrices

from gateway.core.price import Price
from gateway.core.receipt import Tried
from gateway.core.route import Deployment
from gateway.core.usage import Extras, Usage
from gateway.engine import prices
from gateway.engine.prices import FREE, PriceBook, overrides_of, table_prices
from tests.standins import MORNING_S, StillClock

VENDORS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "groq": "groq",
    "xai": "x-ai",
    "fireworks": "fireworks",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "azure": "azure",
    "mistral": "mistral",
    "perplexity": "perplexity",
}


def book(clock: StillClock | None = None, **more) -> PriceBook:
    return PriceBook(clock or StillClock(), vendors=VENDORS, **more)


def place(provider: str, model: str, price: Price | None = None) -> Deployment:
    return Deployment(f"{provider}/{model}", provider, model, price=price)


MODELS = [
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-5.6"),
    ("anthropic", "claude-opus-4-5"),
    ("anthropic", "claude-sonnet-4-5"),
    ("gemini", "gemini-2.5-pro"),
    ("gemini", "gemini-2.5-flash"),
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-small-latest"),
    ("deepseek", "deepseek-chat"),
    ("openrouter", "anthropic/claude-sonnet-4.5"),
    ("azure", "gpt-4o"),
]
USAGES = [
    Usage(1, 1),
    Usage(1234, 567),
    Usage(10_007, 3, cached_tokens=9_001),
    Usage(10_007, 3, cached_tokens=5_000, cache_write_tokens=5_000),
    Usage(200_000, 1000),
    Usage(200_001, 1000, cached_tokens=77),
    Usage(300_003, 4_001, cached_tokens=100_001, cache_write_tokens=1),
]


@pytest.mark.parametrize(("provider", "model"), MODELS)
@pytest.mark.parametrize("hour", [0, 2, 12])
async def test_a_cost_is_the_tables_own_to_the_nano_dollar(provider, model, hour):
    """With cached tokens, long prompts and prices by the time of day: integers lose nothing against its decimals."""
    at = datetime(2026, 11, 18, hour, 30, tzinfo=UTC)
    price = await book(StillClock(at.timestamp())).of(place(provider, model))
    assert price is not None
    for usage in USAGES:
        theirs = TableUsage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        said = calc_price(theirs, model, provider_id=VENDORS[provider], genai_request_timestamp=at).total_price
        assert price.cost_nusd(usage) == int((said * 10**9).to_integral_value(ROUND_HALF_EVEN))


async def test_a_long_gemini_prompt_costs_twice_as_a_whole():
    """The cliff: one token more than 200,000 doubles the price of all of them."""
    price = await book().of(place("gemini", "gemini-2.5-pro"))
    assert price is not None
    assert price.cost_nusd(Usage(200_000)) == 250_000_000
    assert price.cost_nusd(Usage(200_001)) == 500_002_500


async def test_a_price_goes_by_the_moment_it_is_asked_for():
    """DeepSeek is dearer by day; what is remembered is the schedule, not one price of it."""
    clock = StillClock(datetime(2026, 11, 18, 2, 0, tzinfo=UTC).timestamp())
    one = book(clock)
    peak = await one.of(place("deepseek", "deepseek-v4-pro"))
    clock.passed_s = 3 * 3600
    usual = await one.of(place("deepseek", "deepseek-v4-pro"))
    assert peak is not None
    assert usual is not None
    assert peak.prompt > usual.prompt


async def test_two_cliffs_are_two_steps():
    """Some models have more than one; each holds from its own length on."""
    tiered = TieredPrices(Decimal(1), [Tier(32, Decimal(2)), Tier(128, Decimal(4))])
    price = prices.price_of(ModelPrice(input_mtok=tiered, output_mtok=Decimal(10)))
    assert price is not None
    assert [price.cost_nusd(Usage(tokens)) for tokens in (32, 33, 128, 129)] == [32_000, 66_000, 256_000, 516_000]
    assert price.cost_nusd(Usage(129, 1)) == 526_000


async def test_the_deployments_own_word_goes_first_then_the_overrides_then_what_is_free_then_the_table():
    """Who wrote it nearest to the deployment meant it most."""
    own, exact, named, pattern = (Price(n, n) for n in (1, 2, 3, 4))
    rows = {"openai/gpt-4o": exact, "gpt-4o": named, "openai/*": pattern, "*": Price(5, 5)}
    one = book(overrides=rows, free=frozenset({"echo"}))
    assert await one.of(place("openai", "gpt-4o", own)) == own
    assert await one.of(Tried("openai/gpt-4o", "openai", "gpt-4o", 0.0, price=own)) == own
    assert await one.of(place("openai", "gpt-4o")) == exact
    assert await one.of(place("azure", "gpt-4o")) == named
    assert await one.of(place("openai", "gpt-4o-mini")) == pattern
    assert await one.of(place("echo", "echo")) == Price(5, 5)
    assert await book(free=frozenset({"echo"})).of(place("echo", "echo")) == FREE


async def test_what_nobody_knows_is_unknown_and_never_free():
    """A made-up model; a server of one's own, whatever its models are called; a price with parts we do not count."""
    one = book()
    assert await one.of(place("openai", "no-such-model")) is None
    assert await one.of(place("local", "gpt-4o")) is None
    assert await one.of(place("perplexity", "sonar-deep-research")) is None  # citations
    assert await one.of(place("mistral", "mistral-ocr-latest")) is None  # pages
    assert table_prices("no-such-vendor", "gpt-4o") is prices.NOBODY_KNOWS


@pytest.mark.parametrize("path", ["models/gemini-2.5-pro", "projects/p/publishers/google/models/gemini-2.5-pro"])
async def test_a_name_that_is_a_path_is_known_by_its_last_part(path):
    """As Google writes its models; elsewhere what stands before a slash is part of the name."""
    one = book()
    assert await one.of(place("gemini", path)) == await one.of(place("gemini", "gemini-2.5-pro"))
    assert await one.of(place("fireworks", "accounts/fireworks/models/deepseek-v3p2")) is not None
    assert await one.of(place("openrouter", "nobody/gpt-4o")) is None


async def test_a_model_is_looked_up_once_found_or_not_and_by_all_who_ask_together(monkeypatch):
    """A miss costs half a millisecond in a thread; the same question is not asked twice."""
    asked: list[str] = []
    real = prices.table_prices
    monkeypatch.setattr(prices, "table_prices", lambda vendor, model: (asked.append(model), real(vendor, model))[1])
    one = book()
    for _ in range(2):
        await asyncio.gather(*(one.of(place("openai", name)) for name in ["gpt-4o", "nope"] * 50))
    assert sorted(asked) == ["gpt-4o", "nope"]


async def test_names_that_clients_make_up_are_not_remembered_without_end(monkeypatch):
    """`openai/*` lets strangers choose them."""
    monkeypatch.setattr(prices, "MOST_KEPT", 10)
    one = book()
    for n in range(30):
        await one.of(place("openai", f"made-up-{n}"))
    assert len(one._kept) == 10
    assert one._lookups == {}


async def test_a_slow_lookup_holds_no_call_and_serves_the_next(monkeypatch):
    """The wait is bounded; a client that leaves does not end the lookup for the others."""
    monkeypatch.setattr(prices, "LOOKUP_S", 0.05)
    gate = threading.Event()
    monkeypatch.setattr(prices, "table_prices", lambda *_: (gate.wait(60), prices.Always(FREE))[1])
    one = book()
    assert await asyncio.wait_for(one.of(place("openai", "x")), 20) is None
    gate.set()
    for _ in range(100):
        if (found := await one.of(place("openai", "x"))) is not None:
            break
    assert found == FREE


async def test_warming_looks_everything_up_without_the_internet(monkeypatch):
    """Afterwards no call waits; and no price is ever fetched."""

    def no_internet(*_: object) -> None:
        raise AssertionError("a price was fetched")

    monkeypatch.setattr(socket.socket, "connect", no_internet)
    monkeypatch.setattr(socket, "getaddrinfo", no_internet)
    one = book()
    await one.warm([place("openai", "gpt-4o"), place("gemini", "gemini-2.5-pro"), place("local", "llama")])
    monkeypatch.setattr(prices, "table_prices", no_internet)
    assert await one.of(place("openai", "gpt-4o")) is not None


@pytest.mark.parametrize("model", ["gpt-4o", "nope"])
async def test_what_was_asked_for_once_is_at_hand(model):
    """Found or not: a call has to wait for nothing, and is not told that nobody knows what nobody asked for."""
    one = book()
    with pytest.raises(LookupError):
        one.at_hand(place("openai", model))
    asked = await one.of(place("openai", model))
    assert one.at_hand(place("openai", model)) == asked
    own = Price(1, 2)
    assert book().at_hand(place("openai", model, own)) == own


def test_the_table_is_not_imported_with_the_gateway():
    """It takes longer than all the rest of the start."""
    check = "import sys, gateway.engine.prices; sys.exit('genai_prices' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60).returncode == 0


def test_overrides_are_read_from_yaml_in_dollars_per_million():
    """As vendors print them, down to a fraction of a nano-dollar per token."""
    table = """
        openai/gpt-x: {prompt: 0.0375, completion: 10, cached: 0.125, cache_write: 1.5}
        long: {prompt: 1, completion: 2, above: {tokens: 100, prompt: 3, completion: 4}}
    """
    rows = overrides_of(table, "prices.yaml")
    assert rows["openai/gpt-x"] == Price(37_500, 10_000_000, 125_000, 1_500_000)
    assert [rows["long"].cost_nusd(Usage(tokens, 1)) for tokens in (100, 101)] == [102_000, 307_000]


@pytest.mark.parametrize(
    ("option", "used", "nusd"),
    [
        ("cached: 0.5", Usage(10, 0, 4), 6_000 + 2_000),
        ("cache_write: 2", Usage(10, 0, 0, 4), 6_000 + 8_000),
        ("cache_write_1h: 3", Usage(10, 0, 0, 4, extras=Extras(cache_write_1h_tokens=1)), 9_000 + 3_000),
        ("cache_write_12h: 3", Usage(10, 0, 0, 4, extras=Extras(cache_write_12h_tokens=1)), 9_000 + 3_000),
        ("reasoning: 9", Usage(0, 10, reasoning_tokens=4), 12_000 + 36_000),
        ("audio_prompt: 9", Usage(10, 0, extras=Extras(audio_prompt_tokens=4)), 6_000 + 36_000),
        (
            "cached: 0.5, cached_audio: 5",
            Usage(9, 0, 4, extras=Extras(audio_prompt_tokens=4, cached_audio_tokens=4)),
            25_000,
        ),
        ("audio_completion: 9", Usage(0, 10, extras=Extras(audio_completion_tokens=4)), 12_000 + 36_000),
        ("image_prompt: 9", Usage(10, 0, extras=Extras(image_prompt_tokens=4)), 6_000 + 36_000),
        (
            "cached: 0.5, cached_image: 5",
            Usage(9, 0, 4, extras=Extras(image_prompt_tokens=4, cached_image_tokens=4)),
            25_000,
        ),
        ("image_completion: 9", Usage(0, 10, extras=Extras(image_completion_tokens=4)), 12_000 + 36_000),
        ("request: 0.005", Usage(10), 10_000 + 5_000_000),
        ("search: 0.01", Usage(10, extras=Extras(searches=2)), 10_000 + 20_000_000),
        ("file_search: 0.0025", Usage(10, extras=Extras(file_searches=1)), 10_000 + 2_500_000),
        ("image: 0.04", Usage(extras=Extras(images=2)), 80_000_000),
        ("minute: 0.006", Usage(extras=Extras(audio_seconds=90)), 9_000_000),
        ("character: 15", Usage(extras=Extras(characters=3)), 45_000),
        ("tiers: {flex: 0.5}", Usage(10, 10, service_tier="flex"), 15_000),
        ("above: {tokens: 9, prompt: 2, completion: 4}, tiers: {flex: 0.5}", Usage(10, service_tier="flex"), 10_000),
        (
            "above: {tokens: 9, prompt: 2, completion: 4}, search: 0.01",
            Usage(10, extras=Extras(searches=1)),
            10_020_000,
        ),
    ],
)
async def test_each_option_of_a_price_is_charged(option, used, nusd):
    """Beside a dollar a million for what is sent and two for what is answered: none is accepted and then ignored."""
    price = overrides_of(f"model: {{prompt: 1, completion: 2, {option}}}", "prices.yaml")["model"]
    assert price.cost_nusd(used) == nusd
    assert Price.per_million(1, 2).cost_nusd(used) != nusd


def test_what_has_no_price_by_tokens_is_charged_by_what_has_one():
    """Of a call that used tokens all the same, nobody knows the cost."""
    price = overrides_of("whisper: {minute: 0.006}", "prices.yaml")["whisper"]
    assert price.cost_nusd(Usage(extras=Extras(audio_seconds=60))) == 6_000_000
    assert price.cost_nusd(Usage(1)) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpt: {prompt: 1}", "prompt has a price and completion has none"),
        ("gpt: {completion: 1}", "completion has a price and prompt has none"),
        ("gpt: {prompt: 1, completion: 2, cached_audio: 1}", "cached_audio has a price and cached has none"),
        ("gpt: {prompt: 1, completion: 2, tiers: {default: 1}}", '"default" is the usual service'),
        ("gpt: {cached: 1}", "some tokens have a price, but prompt and completion have none"),
        ("gpt: {prompt: 1, completion: 2, above: {tokens: 9}}", "a long prompt has no price"),
        ("gpt: {prompt: 1, completion: 2, cashed: 3}", "unknown field `cashed`"),
        ("gpt: {prompt: -1, completion: 2}", "expected dollars per million tokens like 0.15, got"),
        ("gpt: {prompt: .inf, completion: 2}", "expected dollars per million tokens like 0.15, got"),
        ("gpt: {prompt: .nan, completion: 2}", "expected dollars per million tokens like 0.15, got"),
        ("gpt: {prompt: free, completion: 2}", "expected dollars per million tokens like 0.15, got free"),
        ("[1]", "Expected `object`"),
        ("gpt: {", "line 1"),
    ],
)
def test_a_mistake_in_the_overrides_is_told_with_the_files_name(text, told):
    """A price that is accepted is charged."""
    with pytest.raises(ValueError, match=r'^prices\.yaml(, "gpt")?: ') as caught:
        overrides_of(text, "prices.yaml")
    assert told in str(caught.value)


def test_the_shipped_overrides_can_be_read_and_so_can_their_examples():
    """An example that cannot be copied is none."""
    text = (Path(__file__).parents[2] / "config" / "prices.yaml").read_text()
    assert overrides_of(text, "prices.yaml") == {}
    examples = "\n".join(line[2:] for line in text[text.index("# openai/gpt-x") :].splitlines())
    assert set(overrides_of(examples, "prices.yaml")) == {
        "openai/gpt-x",
        "my-fine-tune",
        "local/*",
        "gemini/gemini-long",
        "openai/gpt-y",
        "whisper-at-home",
    }


def test_the_morning_is_the_one_that_the_clock_says():
    """The tests above read prices of a fixed day."""
    assert datetime.fromtimestamp(MORNING_S, UTC).date().isoformat() == "2026-11-18"
