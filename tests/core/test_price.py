"""Costs, worked out by hand: every part at its own price, and unknown rather than wrong."""

from decimal import Decimal
from itertools import product

import pytest

from gateway.core.price import UNKNOWN, Price, dollars
from gateway.core.usage import Extras, Usage

OPUS = Price(5_000_000, 25_000_000, 500_000, 6_250_000, cache_write_1h=10_000_000, search=10**10)
"""$5 in, $25 out, $0.50 read, $6.25 and $10 written, and $10 for a thousand searches: pico-dollars a piece."""


def test_cached_and_written_tokens_each_have_their_price():
    """1000 sent: 600 from the cache, 300 into it, 100 of them for an hour; 50 answered."""
    used = Usage(1000, 50, 600, 300, extras=Extras(cache_write_1h_tokens=100))
    # 100 x 5 + 600 x 0.5 + 200 x 6.25 + 100 x 10 + 50 x 25 = 500 + 300 + 1250 + 1000 + 1250 = 4300 dollars a million
    assert OPUS.cost_nusd(used) == 4_300_000


def test_a_search_is_charged_beside_the_tokens():
    """Two of them, at a cent each."""
    assert OPUS.cost_nusd(Usage(10, 0, extras=Extras(searches=2))) == 50_000 + 20_000_000


def test_every_call_may_have_a_price_of_its_own():
    """Perplexity's do; a call that used nothing else has it too."""
    price = Price(1_000_000, 1_000_000, request=5 * 10**9)
    assert price.cost_nusd(Usage()) == 5_000_000
    assert price.cost_nusd(Usage(1000, 1000)) == 5_000_000 + 2_000_000


def test_sound_and_pictures_that_were_cached_are_charged_once():
    """100 sent: 40 of sound, 20 of a picture; of the 30 that were cached, 10 were of sound and 5 of the picture."""
    price = Price(1000, 2000, 100, audio_prompt=10_000, cached_audio=3000, image_prompt=5000, cached_image=500)
    parts = Extras(audio_prompt_tokens=40, cached_audio_tokens=10, image_prompt_tokens=20, cached_image_tokens=5)
    # text: 25 fresh x 1, 15 cached x 0.1 · sound: 30 x 10, 10 x 3 · picture: 15 x 5, 5 x 0.5
    assert price.cost_nusd(Usage(100, 0, 30, extras=parts)) == round(25 + 1.5 + 300 + 30 + 75 + 2.5)


def test_how_much_of_the_cached_was_sound_is_not_guessed():
    """Between them lies a factor of a hundred; where the prices are the same, it does not matter."""
    used = Usage(100, 0, 30, extras=Extras(audio_prompt_tokens=40))
    assert Price(1000, 2000, 100, audio_prompt=10_000).cost_nusd(used) is None
    assert Price(1000, 2000, 100).cost_nusd(used) == 73


def test_what_was_thought_and_what_was_spoken_are_parts_of_what_was_answered():
    """100 answered: 60 thought, 30 spoken, 10 said in text."""
    price = Price(0, 1000, reasoning=500, audio_completion=4000)
    used = Usage(0, 100, reasoning_tokens=60, extras=Extras(audio_completion_tokens=30))
    assert price.cost_nusd(used) == 10 + 30 + 120


def test_the_tier_is_the_one_that_the_answer_names():
    """Half for `flex`, double for `priority`; a call and a search cost the same in any."""
    usual = Price(1000, 2000, 500, request=7000, search=9000)
    price = Price(1000, 2000, 500, request=7000, search=9000, tiers={"flex": usual.times(Decimal("0.5"))})
    used = Usage(100, 10, 20, extras=Extras(searches=1))

    def cost(tier: str) -> int | None:
        return price.cost_nusd(
            Usage(used.prompt_tokens, used.completion_tokens, 20, service_tier=tier, extras=used.extras)
        )

    assert cost("") == 80 + 10 + 20 + 7 + 9
    assert cost("flex") == 40 + 5 + 10 + 7 + 9
    assert cost("priority") is None


def test_a_long_prompt_of_another_tier_pays_that_tiers_long_price():
    """The cliff is on all tokens, in every tier; the searches are not dearer for it."""
    base = Price(1000, 2000, search=5000, above_tokens=100, above=Price(3000, 4000, search=5000))
    price = Price(1000, 2000, above_tokens=100, above=base.above, tiers={"flex": base.times(Decimal("0.5"))})
    assert price.cost_nusd(Usage(100, 1)) == 102
    assert price.cost_nusd(Usage(101, 1)) == 307
    assert price.cost_nusd(Usage(101, 1, service_tier="flex", extras=Extras(searches=1))) == round(151.5 + 2 + 5)


def test_pictures_sound_and_speech_have_prices_of_their_own():
    """By the piece, by the second and by the character; to a tenth of a nano-dollar, rounded once."""
    none = Price(UNKNOWN, UNKNOWN)
    assert none.cost_nusd(Usage(extras=Extras(images=2))) is None
    assert Price(UNKNOWN, UNKNOWN, image=4 * 10**10).cost_nusd(Usage(extras=Extras(images=2))) == 80_000_000
    assert Price(UNKNOWN, UNKNOWN, character=15_000_000).cost_nusd(Usage(extras=Extras(characters=3))) == 45_000
    # $0.111 an hour: 7 seconds are 0.111 x 7 / 3600 = 215,833.33 nano-dollars
    assert Price(UNKNOWN, UNKNOWN, audio_hour=111 * 10**9).cost_nusd(Usage(extras=Extras(audio_seconds=7))) == 215_833


def test_what_tokens_pay_for_is_not_charged_by_the_piece_too():
    """A model that makes pictures of tokens says both: how many tokens, and how many pictures."""
    used = Usage(10, 1000, extras=Extras(images=1, image_completion_tokens=1000))
    assert Price(1000, 1000, image_completion=8000).cost_nusd(used) == 8010


@pytest.mark.parametrize(
    "used",
    [
        Usage(10, 0, cached_tokens=11),
        Usage(10, 0, 6, 6),
        Usage(10, 0, 0, 1, extras=Extras(cache_write_1h_tokens=2)),
        Usage(10, 0, extras=Extras(audio_prompt_tokens=11)),
        Usage(10, 0, 1, extras=Extras(audio_prompt_tokens=5, cached_audio_tokens=2)),
        Usage(0, 10, reasoning_tokens=11),
        Usage(-1, 0),
    ],
)
def test_usage_that_does_not_add_up_has_no_cost(used):
    """A part larger than its whole would be charged below nothing."""
    assert Price(10, 10, 1, 12, audio_prompt=20, reasoning=5).cost_nusd(used) is None


@pytest.mark.parametrize("used", [Extras(searches=1), Extras(file_searches=1), Extras(other_tools=1)])
def test_a_search_without_a_price_makes_the_cost_unknown(used):
    """The tokens alone would be too little."""
    assert Price(1, 1).cost_nusd(Usage(1, 1, extras=used)) is None


def test_usage_of_two_attempts_is_added_part_by_part():
    """What one did not say stays unsaid only where neither said it."""
    one = Usage(10, 1, 2, extras=Extras(searches=1, cached_audio_tokens=2), service_tier="flex")
    two = Usage(5, 1, extras=Extras(searches=2, images=1), service_tier="flex")
    assert one + two == Usage(15, 2, 2, service_tier="flex", extras=Extras(searches=3, images=1, cached_audio_tokens=2))
    assert (one + Usage(1)).service_tier == ""
    assert (Usage(1) + Usage(2)).extras is Usage().extras


def test_money_is_printed_to_the_last_digit():
    """A float would not."""
    assert dollars(12_345) == "0.000012345"


RATES = (None, UNKNOWN, 0, 3)


@pytest.mark.parametrize("cached", RATES)
@pytest.mark.parametrize("reasoning", RATES)
@pytest.mark.parametrize("request_", (UNKNOWN, 0, 500))
def test_what_most_calls_use_costs_the_same_by_the_short_way(cached, reasoning, request_):
    """Tokens alone are worked out apart: what is unknown or does not add up is told there too."""
    for prompt, completion in ((UNKNOWN, 2), (1000, UNKNOWN), (1500, 2), (37, 999)):
        price = Price(prompt, completion, cached, reasoning=reasoning, request=request_)
        for counts in product((0, 1, 7), (0, 1, 9), (0, 1, 8), (0,), (0, 1, 10)):
            assert price.cost_nusd(Usage(*counts)) == price.cost_nusd(Usage(*counts, extras=Extras()))
